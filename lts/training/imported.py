"""Runs that began as a checkpoint of the release: what they hold that neither the checkpoint nor training gave them.

The record of such a run has "imported": the checkpoint's name, `weights` (raw or
averaged), the `step` the run began at, the release's own step, whether
`averages` came with all weights, and the names of the variables that were `missing`.
"""

import pathlib
from typing import Any

import numpy as np

from lts.training import run_dir
from lts.training.run_dir import TrainingError

FROZEN = ("encoder/", "decoder/")  # what stage 2 takes over from stage 1, and never trains


def facts(workdir: str | pathlib.Path) -> dict[str, Any]:
    """What the record says of a run's import; empty for a run that was not imported, and where there is none."""
    if not (pathlib.Path(workdir) / "config.json").exists():
        return {}
    return run_dir.read_run_config(workdir).get("imported", {})


def first_step(workdir: str | pathlib.Path) -> int:
    """The step a run began at: 0, unless it was imported with Adam's moments."""
    return facts(workdir).get("step", 0)


def untrained(workdir: str | pathlib.Path, step: int | None, *prefixes: str) -> list[str]:
    """What an imported run holds as it was initialised, because the checkpoint did not hold it.

    Args:
      workdir: of any run.
      step: at which it is looked at; past the first one nothing is untrained any more.
      *prefixes: of the names that are asked for, as "encoder/".

    Returns:
      The release's names of the variables.
    """
    missing = facts(workdir).get("missing", ())
    return [name for name in missing if step == first_step(workdir) and name.startswith(prefixes)]


def check_whole(autoencoder: str | pathlib.Path) -> None:
    """Raises `TrainingError` if a run of stage 1 has layers that were never trained."""
    lacking = untrained(autoencoder, run_dir.newest_step(autoencoder), *FROZEN)
    if lacking:
        raise TrainingError(
            f"{autoencoder} was imported from a checkpoint without {lacking[0]}: go on with train_autoencoder first"
        )


def check_frozen(workdir: str | pathlib.Path, autoencoder: str | pathlib.Path | None) -> None:
    """Raises `TrainingError` unless an imported run of stage 2 has one encoder and decoder to begin with.

    They came with the checkpoint or, where it held none, are the autoencoder's.
    """
    step = run_dir.newest_step(workdir)
    if not facts(workdir) or step != first_step(workdir):
        return  # not imported, or settled by the training it has behind it
    lacking = untrained(workdir, step, *FROZEN)
    if lacking and autoencoder is None:
        raise TrainingError(f"{workdir} was imported from a checkpoint without {lacking[0]}: give --autoencoder=RUN")
    if lacking or autoencoder is None:
        return
    (ours, _), (theirs, _) = run_dir.read_newest(workdir), run_dir.read_newest(autoencoder)
    if any(not np.array_equal(ours[name], theirs.get(name)) for name in ours if name.startswith(FROZEN)):
        raise TrainingError(
            f"{workdir} was imported with an encoder and a decoder, and those of {autoencoder} are others: "
            "leave out --autoencoder"
        )


def check_features(workdir: str | pathlib.Path, step: int, weights: str) -> None:
    """Raises `TrainingError` if a run has no trained features, or none of the weights that are asked for.

    Args:
      workdir: of a run of stage 2.
      step: at which it is looked at.
      weights: "raw" or "averaged".
    """
    lacking = untrained(workdir, step, "discriminator/conv_")
    if lacking:
        raise TrainingError(f"{workdir} was imported from a checkpoint without {lacking[0]}, and not trained since")
    if weights == "averaged" and step == first_step(workdir) and not facts(workdir).get("averages", True):
        raise TrainingError(f"{workdir} was imported from a checkpoint without all averages: give --weights=raw")
