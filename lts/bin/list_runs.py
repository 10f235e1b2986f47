r"""List training runs, and remove checkpoints that are not needed any more.

    python -m lts.bin.list_runs runs
    python -m lts.bin.list_runs --keep_last_checkpoint=runs/gan

The first command lists all runs below a folder: stage, steps of the newest checkpoint, size, the settings that differ
from the preset, and the last metrics. The second removes all checkpoints of a run but the newest, which is read first.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from lts import runs
from lts.bin import common, paths
from lts.utils import files
from lts.utils.checkpoint_names import newest_first
from lts.utils.streams import print_result

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("keep_last_checkpoint", None, "run whose older checkpoints are removed; no other file is")


def main(folders: Sequence[str]) -> None:
    """List runs, or remove checkpoints."""
    if (len(folders) == 1) == bool(FLAGS.keep_last_checkpoint):
        raise common.UsageError("give the folder of the runs, or --keep_last_checkpoint=RUN")
    if FLAGS.keep_last_checkpoint:
        _remove_older(FLAGS.keep_last_checkpoint)
        return
    folder = paths.expand("folder", folders[0])
    if not os.path.isdir(folder):
        raise common.UsageError(f"there is no such folder. Received: {folder!r}")
    print_result(runs.table(folder))


def _remove_older(workdir: str) -> None:
    """Remove all checkpoints of a run but the newest.

    Raises:
      TrainingError: no run, a process trains there, or the newest checkpoint cannot be read.
    """
    common.import_tensorflow()
    from lts.training import run_dir
    from lts.training.checkpoints import TrainingError, read_checkpoint

    run_dir.read_run_config(workdir)
    with run_dir.locked(workdir):
        checkpoints = newest_first(pathlib.Path(workdir) / runs.CHECKPOINTS)
        if not checkpoints:
            raise TrainingError(f"the run has no checkpoint. Received: {workdir}.")
        newest, *older = checkpoints
        read_checkpoint(newest)
        size = sum(runs.size_of(checkpoint) for checkpoint in older)
        for checkpoint in older:
            files.remove_folder(checkpoint)
    print_result(f"removed {len(older)} checkpoints of {workdir}, {runs.megabytes(size)}; {newest.name} stays")


def console() -> None:
    """Run the command `lts-list-runs`."""
    define_flags()
    common.run(main, arguments=True)


if __name__ == "__main__":
    console()
