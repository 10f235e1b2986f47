"""Training: devices, optimizers, checkpoints and resume, monitoring, the one `train` function, runs out and in."""

from lts.config.options import Options
from lts.models.base import SingleLoss
from lts.training.export import export_random, export_run, load_classifier
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
    "linear_decay",
    "load_classifier",
    "read_record",
    "run",
    "train",
]
