"""Runs that were never trained, photographs, and a model that is easy to see through."""

import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image

from lts import config as configs
from lts.training import workdir as runs
from lts.training.task import checkpoint_items
from lts.training.train import build_model
from tests.training.runs import TINY

FIELDS = dict(flag.removeprefix("--").split("=") for flag in TINY)


def write_run(workdir: pathlib.Path, stage: str, **changes) -> pathlib.Path:
    """A run's folder with a checkpoint of weights as they were drawn."""
    config = configs.preset("tiny").replace(**{**FIELDS, **changes})
    record = {"stage": stage, "dataset": "folder:photos", "split": "train", "config": config}
    runs.claim(workdir, record)
    runs.Checkpoints(workdir, checkpoint_items(build_model(config, stage))).save(3)
    return workdir


def write_photos(folder: pathlib.Path, names, value=None) -> pathlib.Path:
    """Pictures of random colours and sizes; with `value`, grey ones, each as bright as `value` says by name."""
    generator = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        size = generator.integers(18, 30, 2)
        pixels = generator.integers(0, 256, (*size, 3)) if value is None else np.full((*size, 3), value(name))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    return folder


class BrightModel:
    """Finds an image the more repaired the brighter it is, cell by cell."""

    path, fingerprint, image_size, test_crop = pathlib.Path("bright"), "0123456789abcdef", 16, 0.5

    def __init__(self, cells: int = 4, sign: float = 1.0):
        self.cells, self.sign, self.description = cells, sign, {"weights": "none", "config": {}}

    def spot(self, images):
        grey = np.asarray(images, np.float32).mean(-1) / 255
        side = grey.shape[1] // self.cells
        found = grey.reshape(len(grey), self.cells, side, self.cells, side).mean((2, 4))
        found = np.float32(0.5) + np.float32(self.sign) * (found - np.float32(0.5))
        return {"probability": tf.constant(found.mean((1, 2))), "artifact_map": tf.constant(found)}
