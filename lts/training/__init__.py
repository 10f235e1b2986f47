"""Training: strategies, optimizers, checkpoints, monitoring and `train`."""

from lts.config.options import MonitoringOptions
from lts.models.base import TrainableModel
from lts.training.checkpoints import TrainingError
from lts.training.export import export_random, export_run, load_classifier, random_network
from lts.training.optimizers import ReleaseAdam, linear_decay
from lts.training.run_dir import read_run_config
from lts.training.run_record import RunRecord
from lts.training.strategy import build_strategy
from lts.training.task import Result, Task, run
from lts.training.train import train

__all__ = [
    "MonitoringOptions",
    "ReleaseAdam",
    "Result",
    "RunRecord",
    "Task",
    "TrainableModel",
    "TrainingError",
    "build_strategy",
    "export_random",
    "export_run",
    "linear_decay",
    "load_classifier",
    "random_network",
    "read_run_config",
    "run",
    "train",
]
