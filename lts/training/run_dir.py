"""What lies in a run's folder: the record of its configuration, checkpoints, monitoring.

WORKDIR/config.json     stage, configuration, data: what the run is
WORKDIR/checkpoints/    step_N/weights.*: every variable by name, for tf.train.load_checkpoint
WORKDIR/last_checkpoint the newest one's name: none may be lost without a word
WORKDIR/metrics.jsonl   a line of scalars each `log_steps`
WORKDIR/pictures/       the newest picture strip
WORKDIR/tensorboard/    event files
WORKDIR/lock            held while a process trains here
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts.config import NETWORKS, Config, differences
from lts.networks.variables import variables_by_path
from lts.utils import files
from lts.utils.errors import UserError, first_line


class TrainingError(UserError):
    """A run that cannot start, go on or be read."""


class DamagedError(TrainingError):
    """A checkpoint that cannot be read: cut off, changed, or with a file missing."""


@contextlib.contextmanager
def locked(workdir: str | pathlib.Path) -> Iterator[None]:
    """Holds the workdir for this process; the kernel lets go of it however the process ends.

    Raises:
      TrainingError: another process holds it.
    """
    try:
        with files.locked(workdir):
            yield
    except files.InUse as holder:
        raise TrainingError(f"{workdir} is in use by {holder}: stop it, or give another --workdir") from None


def read_run_config(workdir: str | pathlib.Path) -> dict[str, Any]:
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


def open_run(workdir: str | pathlib.Path, record: dict[str, Any]) -> dict[str, Any]:
    """Writes the record of a new run, or holds the record of an old one against it.

    An imported run that was never trained has networks and nothing else: its
    first training says the rest of the configuration, and the data.

    Args:
      workdir: folder of the run; made if missing.
      record: "config" is a `Config`; "data" may change between starts (it is
        reported), and so may "hardware" and "commit"; everything else may not.

    Returns:
      The record, with what was said of the run when it was imported.

    Raises:
      TrainingError: the folder holds a run of another configuration; the message names the fields.
    """
    workdir = pathlib.Path(workdir)
    path = workdir / "config.json"
    for folder in (workdir, workdir / "checkpoints", workdir / "pictures"):
        files.remove_partial(folder)
    if not path.exists():
        if (workdir / "checkpoints").exists():
            raise TrainingError(f"{workdir} has checkpoints but no {path.name}: not a run that can go on")
        write_run_config(workdir, record)
        return record
    old = read_run_config(workdir)
    never_trained = "imported" in old and "dataset" not in old
    networks = NETWORKS if never_trained else ()
    changed = differences(old["config"], record["config"], *networks)
    held = record.keys() & old.keys() if never_trained else record.keys()
    for key in held - {"config", "data", "hardware", "commit"}:
        changed += _differences(key, old.get(key), record[key])
    if changed:
        raise TrainingError(
            f"{workdir} holds a run of another configuration ({'; '.join(changed)}): "
            "give the same flags to go on with it, or another folder"
        )
    if "imported" in old:
        record = {**old, **record}
    if never_trained:
        write_run_config(workdir, record)
    elif old.get("data") != record.get("data"):
        warn(f"the data changed since the checkpoint: {old.get('data')} -> {record.get('data')}")
    return record


def _differences(name: str, old: Any, new: Any) -> list[str]:
    """'name: old -> new' where they differ; of dictionaries a line for each entry that does."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key in old | new for line in _differences(f"{name}.{key}", old.get(key), new.get(key))]
    return [f"{name}: {old} -> {new}"]


def write_run_config(workdir: str | pathlib.Path, record: dict[str, Any]) -> None:
    """Writes the record of a run; "config" in it is a `Config`."""
    files.write_json(pathlib.Path(workdir) / "config.json", {**record, "config": record["config"].to_dict()})


def warn(message: str) -> None:
    """A line on stderr about something that the run goes on with."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


class Checkpoints:
    """The checkpoints of a run: written beside and renamed, the newest whole one restored.

    Args:
      workdir: folder of the run.
      items: name to network, optimizer or metric, built.
      keep: how many are kept.
    """

    def __init__(self, workdir: str | pathlib.Path, items: Mapping[str, Any], keep: int = 3):
        self.folder, self.keep = pathlib.Path(workdir) / "checkpoints", keep
        self.variables = _named(items)

    @property
    def newest(self) -> pathlib.Path | None:
        """The newest checkpoint, or None."""
        return next(iter(_newest_first(self.folder)), None)

    def restore(self) -> bool:
        """Restores the newest whole checkpoint; False if the run has written none yet.

        Damaged newer ones are reported and put aside as damaged_step_N.

        Raises:
          TrainingError: none of those that were written is whole, or one does not fit.
        """
        values, path, damaged = _read_newest(self.folder)
        if path is None:
            return False
        _assign(self.variables, values, path)
        for other in damaged:
            aside = other.with_name(f"damaged_{other.name}")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(other, aside)
        return True

    def save(self, step: int) -> None:
        """Saves a checkpoint numbered `step` and removes those beyond `keep`; nothing to do if it is there.

        Raises:
          TrainingError: a weight is not finite, or the disk does not take it; nothing is left of it and the
            checkpoints before are whole.
        """
        path = self.folder / f"step_{step:08}"
        if path == self.newest:
            return
        tensors = {name: tf.convert_to_tensor(variable) for name, variable in self.variables.items()}
        for name, tensor in tensors.items():
            if tensor.dtype.is_floating and not np.isfinite(tensor.numpy()).all():
                raise TrainingError(f"{name} is not finite at step {step}: no checkpoint was written")
        try:
            with files.atomic_write(path) as beside:
                beside.mkdir()
                prefix, names = str(beside / "weights"), list(tensors)
                tf.raw_ops.SaveV2(
                    prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=[*tensors.values()]
                )
            files.write_text(_marker(self.folder), f"{path.name}\n")
        except (OSError, tf.errors.OpError) as error:
            reason = first_line(error).rpartition("; ")[2]  # without TensorFlow's name of the file
            before = f"the one before is whole: {self.newest}" if self.newest else "there is none before"
            raise TrainingError(f"{path} could not be written ({reason}); {before}") from None
        for old in _newest_first(self.folder)[self.keep :]:
            with contextlib.suppress(OSError):
                files.remove_folder(old)


def restore_networks(workdir: str | pathlib.Path, *, averaged: bool = False, **networks: keras.Model) -> int:
    """Restores single networks of a run, as `encoder=...`, from its newest whole checkpoint.

    Args:
      workdir: of the run.
      averaged: the moving averages that the first optimizer keeps of the trainable weights, instead of the weights.
      **networks: name in the run's model to built network.

    Returns:
      The step the checkpoint was written at.

    Raises:
      TrainingError: no checkpoint, or one that does not fit.
    """
    variables = _named(networks)
    if averaged:
        stage = read_run_config(workdir)["stage"]  # the name of the model, with which the slots' names begin
        variables = {
            f"optimizer/{stage}_{name.replace('/', '_')}_average" if v.trainable else name: v
            for name, v in variables.items()
        }
    values, path = read_newest(workdir)
    _assign(variables, values, path)
    return _step(path)


def read_newest(workdir: str | pathlib.Path) -> tuple[dict[str, np.ndarray], pathlib.Path]:
    """All values of a run's newest whole checkpoint by name, and its folder.

    Raises:
      TrainingError: there is none.
    """
    values, path, _ = _read_newest(pathlib.Path(workdir) / "checkpoints")
    if path is None:
        raise TrainingError(f"{workdir} has no checkpoint yet: train it first")
    return values, path


def newest_step(workdir: str | pathlib.Path) -> int | None:
    """The step of a run's newest checkpoint, or None."""
    newest = next(iter(_newest_first(pathlib.Path(workdir) / "checkpoints")), None)
    return None if newest is None else _step(newest)


def read_checkpoint(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """All values of a checkpoint by name, checked against the checksums in it.

    Args:
      path: folder of one checkpoint, .../step_N.

    Raises:
      DamagedError: it cannot be read.
    """
    try:
        reader = tf.train.load_checkpoint(str(pathlib.Path(path) / "weights"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (OSError, MemoryError, tf.errors.PermissionDeniedError, tf.errors.UnavailableError) as error:
        raise TrainingError(f"checkpoint {path} cannot be read now: {first_line(error)}") from None
    except Exception as error:  # damaged: TensorFlow's reader raises IndexError, RuntimeError, OpError and others
        raise DamagedError(f"checkpoint {path} is damaged: {first_line(error)}") from None


def _named(items: Mapping[str, Any]) -> dict[str, keras.Variable]:
    """Every variable of networks, optimizers and metrics under a name that does not depend on their order."""
    return {f"{name}/{path}": v for name, item in items.items() for path, v in variables_by_path(item).items()}


def _marker(folder: pathlib.Path) -> pathlib.Path:
    """The file that holds the newest checkpoint's name: outside of the folder, so that its loss is noticed."""
    return folder.parent / "last_checkpoint"


def _step(path: pathlib.Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.rpartition("_")[2])


def _newest_first(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("step_*"), key=lambda path: path.name, reverse=True)


def _read_newest(folder: pathlib.Path):
    """(values, path, damaged newer ones) of the newest whole checkpoint; path is None if none was ever written."""
    damaged = []
    marker = _marker(folder)
    expected = marker.read_text(encoding="utf-8", errors="replace").strip() if marker.exists() else ""
    if expected and not (folder / expected).exists():
        warn(f"checkpoint {folder / expected} is missing")
    for path in _newest_first(folder):
        try:
            return read_checkpoint(path), path, damaged
        except DamagedError as error:
            warn(str(error))
            damaged.append(path)
    if damaged or marker.exists():
        raise TrainingError(f"no whole checkpoint is left in {folder}: put one back, or give another --workdir")
    return {}, None, []


def _assign(variables: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Values into variables by name; all are checked before the first is changed."""
    for name, variable in variables.items():
        if name not in values:
            raise TrainingError(f"checkpoint {path} does not hold all that is needed: {name} is missing")
        if values[name].shape != tuple(variable.shape):
            raise TrainingError(
                f"checkpoint {path} cannot be restored: {name} is {list(values[name].shape)} in it, "
                f"{list(variable.shape)} in this configuration"
            )
    for name, variable in variables.items():
        variable.assign(values[name])
