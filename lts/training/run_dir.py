"""The folder of a run: record, lock and checkpoints.

    WORKDIR/config.json      the run's `RunRecord`
    WORKDIR/checkpoints/     step_N/weights.*: every variable by name, for tf.train.load_checkpoint
    WORKDIR/last_checkpoint  name of the newest checkpoint
    WORKDIR/metrics.jsonl    one line of scalars every `log_steps` steps
    WORKDIR/pictures/        the newest picture strip
    WORKDIR/train.log        what the programs printed, see `lts.utils.run_log`
    WORKDIR/tensorboard/     event files
    WORKDIR/lock             locked while a process trains here

A checkpoint is one TensorFlow bundle with every variable under its path. `tf.train.Checkpoint` is not used: it silently
skips layers in Python lists, because Keras wraps lists in its own tracker, and `assert_existing_objects_matched`
passes all the same. The bundle's checksums find a damaged file before any weight has changed.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts.config import NETWORKS, SCHEDULES, differences
from lts.networks.variables import variables_by_path
from lts.training.run_record import RECORD_SHAPE, RunRecord
from lts.utils import files
from lts.utils.checkpoint_names import newest_first, step_of
from lts.utils.errors import UserError, first_line
from lts.utils.json_files import JsonError, read_json
from lts.utils.patterns import plain_path
from lts.utils.registry import UnknownNameError, imported_modules
from lts.utils.text import warn

WRITTEN = ("checkpoints", "last_checkpoint", "metrics.jsonl", "pictures/latest.png", "tensorboard")  # by a run
SUGGESTED_RUNS = 5  # runs that a message names


class TrainingError(UserError):
    """A run that cannot start, resume or be read."""


class DamagedError(TrainingError):
    """A checkpoint that is truncated, changed or incomplete."""


@contextlib.contextmanager
def locked(workdir: str | pathlib.Path) -> Iterator[None]:
    """Lock a run's folder until this process ends, however it ends."""
    try:
        with files.locked(workdir):
            yield
    except files.InUse as holder:
        raise TrainingError(f"workdir is in use by {holder}. Received: workdir={workdir}. Use another one.") from None


def read_run_config(workdir: str | pathlib.Path) -> RunRecord:
    """Return the record of a run; `TrainingError` if there is none."""
    path = pathlib.Path(workdir) / "config.json"
    try:
        return RunRecord.from_dict(read_json(path, RECORD_SHAPE))
    except FileNotFoundError:
        runs = sorted(str(folder.parent) for folder in path.parent.glob("*/checkpoints"))
        advice = f" Give one of its runs: {', '.join(runs[:SUGGESTED_RUNS])}." if runs else ""
        raise TrainingError(f"workdir holds no run (no {path.name}). Received: workdir={workdir}.{advice}") from None
    except JsonError as error:
        raise TrainingError(str(error)) from None
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as the record of a run: {error}") from None


@contextlib.contextmanager
def naming_imports(*workdirs: str | pathlib.Path | None) -> Iterator[None]:
    """Tell in the error of an unknown name which --import of existing runs is missing."""
    try:
        yield
    except UnknownNameError as error:
        for workdir in workdirs:
            if workdir is None or not (pathlib.Path(workdir) / "config.json").exists():
                continue
            missing = set(read_run_config(workdir).modules).difference(imported_modules())
            if missing:
                flags = " ".join(f"--import={name}" for name in sorted(missing))
                raise UnknownNameError(f"{error} The run {workdir} was trained with {flags}. Give the same.") from None
        raise


def write_run_config(workdir: str | pathlib.Path, record: RunRecord) -> None:
    """Write the record of a run."""
    files.write_json(pathlib.Path(workdir) / "config.json", record.to_dict())


def open_run(workdir: str | pathlib.Path, record: RunRecord, extend: bool = False) -> RunRecord:
    """Write a run's record, or check the existing one.

    Contents decide: the configuration, and fingerprints of images and weights. Paths are only noted.

    An imported run that was never trained has only its networks fixed. Its first training sets the remaining
    configuration and the data.

    Args:
      workdir: folder of the run; created if missing.
      record: the run about to train. New data at the same place print a warning.
      extend: whether the run may get more steps than the existing one.

    Returns:
      The record, completed by the existing one.

    Raises:
      TrainingError: the folder holds another run; the message names the fields.
    """
    workdir = pathlib.Path(workdir)
    files.check_utf8(workdir)
    path = workdir / "config.json"
    # In a folder with a record all files are this program's.
    for folder in (workdir, workdir / "checkpoints", workdir / "pictures"):
        files.remove_partial(folder, unowned=path.exists())
    if not path.exists():
        foreign = [name for name in WRITTEN if os.path.lexists(workdir / name)]
        if foreign:
            raise TrainingError(
                f"workdir has {foreign[0]}, which a run would replace, but no {path.name}. "
                f"Received: workdir={workdir}. Give another folder."
            )
        write_run_config(workdir, record)
        return record

    old = read_run_config(workdir)
    extended = extend and 0 < old.total_steps < record.total_steps and not old.never_trained
    changed = _record_changes(old, record, extended)
    if changed:
        raise TrainingError(
            f"workdir holds a run of another configuration ({'; '.join(changed)}). Received: workdir={workdir}. "
            "Give the same flags to resume it, or another folder."
        )
    completed = _completed(record, old, newest_step(workdir))
    if old.never_trained:
        write_run_config(workdir, completed)
        return completed
    # Data, hardware and commit stay those of the last checkpoint until the next one.
    noted = dataclasses.replace(completed, data=old.data, hardware=old.hardware, commit=old.commit)
    if noted != old:
        write_run_config(workdir, noted)
    if extended:
        steps = f"{record.total_steps:,} steps"
        schedule = f"the learning rate decays over {steps} now, so it is higher than before where the run resumes"
        print(f"{record.stage}: extended from {old.total_steps:,} to {steps}; {schedule}", flush=True)
    return completed


def _record_changes(old: RunRecord, new: RunRecord, extended: bool) -> list[str]:
    """Return what makes a record that of another run; warn about contents that changed in place."""
    if old.never_trained:
        return differences(old.config, new.config, *NETWORKS) + _differences("stage", old.stage, new.stage)
    # The schedule of the other stage has no effect, and may change: a trained autoencoder may be extended.
    other = next(section for section in SCHEDULES if section != old.section)
    schedule = getattr(new.config, old.section)
    if extended:
        existing = getattr(old.config, old.section)
        schedule = dataclasses.replace(schedule, steps=existing.steps, epochs=existing.epochs)
    config = dataclasses.replace(new.config, **{old.section: schedule, other: getattr(old.config, other)})
    changed = differences(old.config, config)
    changed += _differences("stage", old.stage, new.stage)
    changed += _differences("split", old.split, new.split)
    details = {**old.details, **new.details}
    details["stored_size"] = new.details.get("stored_size")
    if _may_have_one_stored_size(old, new):
        details["stored_size"] = old.details.get("stored_size")
    changed += _differences("", dict(old.details), details)

    places = {"dataset": (_place(old), _place(new)), "autoencoder": (old.autoencoder, new.autoencoder)}
    places["init_from"] = (old.init_from, new.init_from)
    before = {**old.fingerprints, "dataset": old.data}
    after = {**new.fingerprints, "dataset": new.data}
    for name, (old_place, new_place) in places.items():
        if after.get(name) in (None, before.get(name)):
            continue
        if old_place != new_place:
            changed += _differences(name, old_place, new_place)
        elif name == "dataset":
            warn(f"the data changed since the last checkpoint: {before[name]} -> {after[name]}")
        else:
            warn(f"the weights of {new_place} changed since this run was started")
    return changed


def _may_have_one_stored_size(old: RunRecord, new: RunRecord) -> bool:
    """Return whether both starts may have the same --stored_size; a record holds it only where images were shrunk."""
    before = old.details.get("stored_size", 0)
    after = new.details.get("stored_size", 0)
    if bool(before) == bool(after):
        return before == after
    # Photographs may be added or removed. The images of the start that shrank none must be too small to be shrunk.
    largest = old.largest_side if after else new.largest_side
    return largest is not None and largest <= max(before, after)


def _place(record: RunRecord) -> str | None:
    """Return where a run's images are, as text that can be compared."""
    if record.place is None or record.images_at != record.dataset:
        return record.images_at
    return f"{record.dataset} in {record.place}"


def _completed(record: RunRecord, old: RunRecord, step: int | None) -> RunRecord:
    """Return a record with what only the existing one holds; `step` is that of the newest checkpoint."""
    # Once there is a checkpoint, it holds the weights that the run began with.
    fingerprints = {**record.fingerprints, **old.fingerprints} if step else record.fingerprints
    return dataclasses.replace(
        record,
        imported=old.imported,
        autoencoder=record.autoencoder or old.autoencoder,
        init_from=record.init_from or old.init_from,
        fingerprints=fingerprints,
        details={**old.details, **record.details},
    )


def _differences(name: str, old: Any, new: Any) -> list[str]:
    """Return "name: old -> new" for each difference."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in old | new:
            lines += _differences(f"{name}.{key}".lstrip("."), old.get(key), new.get(key))
        return lines
    return [f"{name}: {old} -> {new}"]


class Checkpoints:
    """The checkpoints of one run.

    They are written atomically, to a temporary folder that is then renamed.

    Args:
      workdir: folder of the run.
      items: name to network, optimizer or metric, all built.
      keep: number of checkpoints to keep.
    """

    def __init__(self, workdir: str | pathlib.Path, items: Mapping[str, Any], keep: int = 3):
        self.folder = pathlib.Path(workdir) / "checkpoints"
        self.keep = keep
        self.variables = _named_variables(items)

    @property
    def newest(self) -> pathlib.Path | None:
        """The newest checkpoint, or None."""
        return next(iter(newest_first(self.folder)), None)

    def restore(self) -> bool:
        """Restore the newest readable checkpoint.

        Damaged newer ones are reported and renamed to damaged_step_N.

        Returns:
          False if none was written yet.

        Raises:
          TrainingError: no checkpoint can be read, or it does not fit the model.
        """
        values, path, damaged = _read_newest(self.folder)
        if path is None:
            return False
        _assign(self.variables, values, path)
        for checkpoint in damaged:
            os.replace(checkpoint, _free_name(checkpoint.with_name(f"damaged_{checkpoint.name}")))
        return True

    def save(self, step: int) -> None:
        """Write a step's checkpoint and remove old ones.

        Does nothing if it exists. Earlier checkpoints are unchanged if a weight is not finite or writing fails.

        Raises:
          TrainingError: a weight is not finite, or writing fails.
        """
        path = self.folder / f"step_{step:08}"
        if path == self.newest:
            return
        tensors = {name: tf.convert_to_tensor(variable) for name, variable in self.variables.items()}
        for name, tensor in tensors.items():
            if tensor.dtype.is_floating and not np.isfinite(tensor.numpy()).all():
                raise TrainingError(f"{name} is not finite at step {step}: no checkpoint was written")
        try:
            with files.atomic_write(path) as partial:
                partial.mkdir()
                tf.raw_ops.SaveV2(
                    prefix=str(partial / "weights"),
                    tensor_names=list(tensors),
                    shape_and_slices=[""] * len(tensors),
                    tensors=list(tensors.values()),
                )
            files.write_text(_marker(self.folder), f"{path.name}\n")
        except (OSError, tf.errors.OpError) as error:
            reason = first_line(error).rpartition("; ")[2]  # without TensorFlow's file name
            raise TrainingError(f"{path} could not be written ({reason}); intact: {self.newest or 'none'}") from None
        for old in newest_first(self.folder)[self.keep :]:
            with contextlib.suppress(OSError):
                files.remove_folder(old)


def restore_networks(
    workdir: str | pathlib.Path, *, averaged: bool = False, optional: Sequence[str] = (), **networks: keras.Model
) -> int:
    """Restore single networks from a run's newest checkpoint.

    Args:
      workdir: folder of the run.
      averaged: restore the moving averages that the first optimizer keeps.
      optional: beginnings of the names of variables that keep their values where the checkpoint does not hold them,
        such as "discriminator/labels_head/".
      **networks: name in the run's model to built network, such as `encoder=...`.

    Returns:
      The step of the checkpoint.

    Raises:
      TrainingError: no checkpoint, or one that does not fit.
    """
    variables = _named_variables(networks)
    if averaged:
        # Keras names a slot after the model and the variable's path: gan_discriminator_trunk_conv_1_kernel_average.
        model = read_run_config(workdir).stage
        names = {name: f"optimizer/{model}_{name.replace('/', '_')}_average" for name in variables}
        variables = {names[name] if v.trainable else name: v for name, v in variables.items()}
    values, path = read_newest(workdir)
    for name in list(variables):
        if name not in values and name.startswith(tuple(optional)):
            del variables[name]
    _assign(variables, values, path)
    return step_of(path)


def read_newest(workdir: str | pathlib.Path) -> tuple[dict[str, np.ndarray], pathlib.Path]:
    """Return a run's newest values by name, and the checkpoint."""
    values, path, _ = _read_newest(pathlib.Path(workdir) / "checkpoints")
    if path is None:
        raise TrainingError(f"workdir has no checkpoint yet. Received: workdir={workdir}. Train it first.")
    return values, path


def weights_fingerprint(workdir: str | pathlib.Path, *networks: str) -> str:
    """Return 16 hex digits of networks in a run's newest checkpoint, such as "encoder"."""
    values, _ = read_newest(workdir)
    digest = hashlib.sha256()
    for name in sorted(values):
        if name.split("/")[0] in networks:
            digest.update(f"{name} {values[name].shape} ".encode())
            digest.update(values[name].tobytes())
    return digest.hexdigest()[:16]


def newest_step(workdir: str | pathlib.Path) -> int | None:
    """Return the step of the newest checkpoint, or None."""
    newest = next(iter(newest_first(pathlib.Path(workdir) / "checkpoints")), None)
    return None if newest is None else step_of(newest)


def read_checkpoint(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Return a checkpoint's values by name, verified by checksum.

    Raises:
      DamagedError: the checkpoint is damaged.
      TrainingError: it cannot be read at the moment.
    """
    try:
        files.check_regular_files(path)
        with plain_path(path) as folder:
            reader = tf.train.load_checkpoint(str(folder / "weights"))
            return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (OSError, MemoryError, tf.errors.PermissionDeniedError, tf.errors.UnavailableError) as error:
        raise TrainingError(f"checkpoint {path} cannot be read now: {first_line(error)}") from None
    # NB: on a damaged file TensorFlow's reader raises IndexError, RuntimeError, OpError and others.
    except Exception as error:
        raise DamagedError(f"checkpoint {path} is damaged: {first_line(error)}") from None


def _named_variables(items: Mapping[str, Any]) -> dict[str, keras.Variable]:
    """Return name/path to variable, independent of their order."""
    variables = {}
    for name, item in items.items():
        for path, variable in variables_by_path(item).items():
            variables[f"{name}/{path}"] = variable
    return variables


def _marker(folder: pathlib.Path) -> pathlib.Path:
    """Return the file that names the newest checkpoint."""
    # It is outside of the checkpoints' folder. Without it, a run whose folder was deleted would silently start again
    # and delete its curves.
    return folder.parent / "last_checkpoint"


def _free_name(path: pathlib.Path) -> pathlib.Path:
    """Return the path, with a number if something of that name exists."""
    candidates = itertools.chain([path], (path.with_name(f"{path.name}_{number}") for number in itertools.count(2)))
    return next(candidate for candidate in candidates if not os.path.lexists(candidate))


def _read_newest(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], pathlib.Path | None, list[pathlib.Path]]:
    """Return (values, path or None, damaged newer checkpoints)."""
    damaged = []
    marker = _marker(folder)
    expected = files.read_regular(marker).decode("utf-8", errors="replace").strip() if marker.exists() else ""
    if expected and not (folder / expected).exists():
        warn(f"checkpoint {folder / expected} is missing")
    for path in newest_first(folder):
        try:
            return read_checkpoint(path), path, damaged
        except DamagedError as error:
            warn(str(error))
            damaged.append(path)
    if damaged or marker.exists():
        raise TrainingError(
            f"no readable checkpoint is left. Received: {folder}. Put one back or use another --workdir"
        )
    return {}, None, []


def _assign(variables: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Assign values to variables by name."""
    # All names and shapes are checked before the first variable changes.
    for name, variable in variables.items():
        if name not in values:
            raise TrainingError(f"checkpoint {path} does not fit this configuration: it does not hold {name}")
        shape = values[name].shape
        expected = tuple(variable.shape)
        if shape != expected:
            raise TrainingError(f"checkpoint {path} does not fit: {name} has shape {shape}, expected {expected}")
    for name, variable in variables.items():
        variable.assign(values[name])
