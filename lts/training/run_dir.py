"""The folder of a run: its record and its lock.

    WORKDIR/config.json      the run's `RunRecord`
    WORKDIR/checkpoints/     step_N/weights.*: every variable by name
    WORKDIR/last_checkpoint  name of the newest checkpoint
    WORKDIR/metrics.jsonl    one line of scalars every `log_steps` steps
    WORKDIR/pictures/        the newest picture strip
    WORKDIR/train.log        what the programs printed, see `lts.utils.run_log`
    WORKDIR/tensorboard/     event files
    WORKDIR/lock             locked while a process trains here

`lts.training.checkpoints` reads and writes the checkpoints.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from lts.config import NETWORKS, SCHEDULES, differences
from lts.training import checkpoints
from lts.training.checkpoints import TrainingError
from lts.training.run_record import RECORD_SHAPE, RunRecord
from lts.utils import files
from lts.utils.checkpoint_names import step_of
from lts.utils.json_files import JsonError, read_json
from lts.utils.registry import UnknownNameError, imported_modules
from lts.utils.text import warn

WRITTEN = ("checkpoints", "last_checkpoint", "metrics.jsonl", "pictures/latest.png", "tensorboard")  # by a run
SUGGESTED_RUNS = 5  # runs that a message names


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
    completed = _completed(record, old, checkpoints.newest_step(workdir))
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
    variables = checkpoints.named_variables(networks)
    if averaged:
        # Keras names a slot after the model and the variable's path: gan_discriminator_trunk_conv_1_kernel_average.
        model = read_run_config(workdir).stage
        names = {name: f"optimizer/{model}_{name.replace('/', '_')}_average" for name in variables}
        variables = {names[name] if v.trainable else name: v for name, v in variables.items()}
    values, path = checkpoints.read_newest(workdir)
    for name in list(variables):
        if name not in values and name.startswith(tuple(optional)):
            del variables[name]
    checkpoints.assign(variables, values, path)
    return step_of(path)
