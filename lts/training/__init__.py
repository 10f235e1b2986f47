"""Training: devices, optimizers, checkpoints and resume, monitoring, the one `train` function, runs out and in."""

from lts.models.common import SingleLoss
from lts.options import Options
from lts.training.exporting import export_random, export_run, load_classifier
from lts.training.importing import import_checkpoint
from lts.training.optimizers import ReleaseAdam, linear_decay
from lts.training.strategy import build_strategy
from lts.training.task import Result, Task, run
from lts.training.train import train
from lts.training.workdir import TrainingError, read_record

__all__ = [
    "Options",
    "ReleaseAdam",
    "Result",
    "SingleLoss",
    "Task",
    "TrainingError",
    "build_strategy",
    "export_random",
    "export_run",
    "import_checkpoint",
    "linear_decay",
    "load_classifier",
    "read_record",
    "run",
    "train",
]
