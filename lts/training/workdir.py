"""What lies in a run's folder: the record of its configuration, checkpoints, monitoring.

WORKDIR/config.json     stage, configuration, data: what the run is
WORKDIR/checkpoints/    tf.train.Checkpoint files
WORKDIR/metrics.jsonl   a line of scalars each `log_steps`
WORKDIR/pictures/       the newest picture strip
WORKDIR/tensorboard/    event files
"""

import json
import pathlib
from typing import Any

import keras
import tensorflow as tf

from lts import files
from lts.config import Config, differences
from lts.errors import UserError
from lts.networks.naming import variables_by_path


class TrainingError(UserError):
    """A run that cannot start, go on or be read."""


def read_record(workdir: str | pathlib.Path) -> dict[str, Any]:
    """The record of a run, with "config" as a `Config`.

    Raises:
      TrainingError: no run there, or a record that cannot be read.
    """
    path = pathlib.Path(workdir) / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {**record, "config": Config.from_dict(record["config"])}
    except FileNotFoundError:
        raise TrainingError(f"{workdir} holds no run: there is no {path.name} in it") from None
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as the record of a run: {error}") from None


def claim(workdir: str | pathlib.Path, record: dict[str, Any]) -> None:
    """Writes the record of a new run, or holds the record of an old one against it.

    Args:
      workdir: folder of the run; made if missing.
      record: "config" is a `Config`; "data" may change between starts (it is
        reported), everything else may not.

    Raises:
      TrainingError: the folder holds a run of another configuration; the message names the fields.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        if (pathlib.Path(workdir) / "checkpoints").exists():
            raise TrainingError(f"{workdir} has checkpoints but no {path.name}: not a run that can go on")
        files.write_json(path, {**record, "config": record["config"].to_dict()})
        return
    old = read_record(workdir)
    changed = differences(old["config"], record["config"])
    for key in record.keys() - {"config", "data"}:
        if old.get(key) != record[key]:
            changed.append(f"{key}: {old.get(key)} -> {record[key]}")
    if changed:
        raise TrainingError(
            f"{workdir} holds a run of another configuration ({'; '.join(changed)}): "
            "give the same flags to go on with it, or another --workdir"
        )
    if old.get("data") != record.get("data"):
        print(f"note: the data changed since this run began: {old.get('data')} -> {record.get('data')}", flush=True)


class Checkpoints:
    """The checkpoints of a run: saved whole, the newest restored.

    Args:
      workdir: folder of the run.
      items: name to network or optimizer, built.
      keep: how many are kept.
    """

    def __init__(self, workdir: str | pathlib.Path, items: dict[str, Any], keep: int = 3):
        self.items = items
        self.folder = pathlib.Path(workdir) / "checkpoints"
        self.manager = tf.train.CheckpointManager(_checkpoint(items), str(self.folder), max_to_keep=keep)

    def restore(self) -> bool:
        """Restores the newest checkpoint; False if there is none.

        Raises:
          TrainingError: a checkpoint that does not fit or cannot be read.
        """
        newest = self.manager.latest_checkpoint
        if newest is None:
            return False
        _restore(self.manager.checkpoint, newest)
        return True

    def save(self, step: int) -> None:
        """Saves a checkpoint numbered `step`.

        Raises:
          TrainingError: a weight is not finite; nothing is written.
        """
        for network in self.items.values():
            for variable in network.variables:
                if variable.value.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(variable.value)):
                    raise TrainingError(f"{variable.path} is not finite at step {step}: no checkpoint was written")
        self.manager.save(checkpoint_number=step)


def restore_networks(workdir: str | pathlib.Path, **networks: keras.Model) -> int:
    """Restores single networks of a run, as `encoder=...`, from its newest checkpoint.

    Returns:
      The step the checkpoint was written at.

    Raises:
      TrainingError: no checkpoint, or one that does not fit.
    """
    newest = tf.train.latest_checkpoint(str(pathlib.Path(workdir) / "checkpoints"))
    if newest is None:
        raise TrainingError(f"{workdir} has no checkpoint yet: train it first")
    _restore(_checkpoint(networks), newest)
    return int(newest.rpartition("-")[2])


def _checkpoint(items: dict[str, Any]) -> tf.train.Checkpoint:
    """A checkpoint of every variable of networks and optimizers, each under its path.

    Handing the Keras objects over would lose what they keep in Python lists, without a word: TensorFlow does not look
    into Keras' lists, and `assert_existing_objects_matched` passes all the same.
    """
    tracked = {}
    for name, item in items.items():
        tracked[name] = {path: variable.value for path, variable in variables_by_path(item).items()}
    return tf.train.Checkpoint(**tracked)


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Restores all variables of `checkpoint`; the file may hold more."""
    try:
        status = checkpoint.restore(path)
        status.assert_existing_objects_matched()
        status.expect_partial()
    except AssertionError as error:
        missing = str(error).splitlines()[0]
        raise TrainingError(f"checkpoint {path} does not hold all that is needed: {missing}") from None
    except (tf.errors.OpError, ValueError) as error:
        raise TrainingError(f"checkpoint {path} cannot be restored: {str(error).splitlines()[0]}") from None
