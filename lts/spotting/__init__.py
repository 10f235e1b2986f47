"""Spotting artifacts: overlays and scores of any images, and how good they are on damage of our own making."""

from lts.spotting.corruption import Corruption
from lts.spotting.evaluation import evaluate
from lts.spotting.evaluation_report import summary
from lts.spotting.spot import Score, SpottingError, spot_images

__all__ = ["Corruption", "Score", "SpottingError", "evaluate", "spot_images", "summary"]
