"""Checkpoints of a run: step_N/weights.*, every variable by name, for `tf.train.load_checkpoint`.

A checkpoint is one TensorFlow bundle with every variable under its path. `tf.train.Checkpoint` is not used: it silently
skips layers in Python lists, because Keras wraps lists in its own tracker, and `assert_existing_objects_matched`
passes all the same. The bundle's checksums find a damaged file before any weight has changed.
"""

import contextlib
import hashlib
import itertools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts.networks.variables import variables_by_path
from lts.utils import files
from lts.utils.checkpoint_names import newest_first, step_of
from lts.utils.errors import UserError, first_line
from lts.utils.patterns import plain_path
from lts.utils.text import warn


class TrainingError(UserError):
    """A run that cannot start, resume or be read."""


class DamagedError(TrainingError):
    """A checkpoint that is truncated, changed or incomplete."""


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
        self.variables = named_variables(items)

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
        assign(self.variables, values, path)
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


def named_variables(items: Mapping[str, Any]) -> dict[str, keras.Variable]:
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


def assign(variables: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
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
