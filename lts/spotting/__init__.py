"""Artifact spotting: overlays, scores, evaluation."""

from lts.spotting.corruption import Corruption
from lts.spotting.evaluation import EVALUATION, evaluate
from lts.spotting.evaluation_report import summary
from lts.spotting.sheet import false_alarms, headline
from lts.spotting.spot import SPOTTED, Score, SpottingError, spot_images

__all__ = [
    "EVALUATION",
    "SPOTTED",
    "Corruption",
    "Score",
    "SpottingError",
    "evaluate",
    "false_alarms",
    "headline",
    "spot_images",
    "summary",
]
