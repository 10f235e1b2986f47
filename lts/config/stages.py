"""Kinds of training (ours). Imports no TensorFlow.

A new kind is a model in `lts.models` and an entry here.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Stage:
    """A kind of training, as `lts.training.train` runs and exports it."""

    title: str  # what the features are called in tables
    section: str  # of the configuration, with its schedule
    model: str  # "module:class"
    options: tuple[str, ...] = ()  # arguments of the model, apart from the configuration
    network: str = "network"  # attribute of the model that is exported
    layers: str = "backbone"  # whose layers the export has: backbone | encoder
    labelled: bool = False  # trains on images with labels only
    classes: int = 0  # of a classifier, where no labels tell their number
    image_scale: float = 1.0  # sides of the loaded images, as a multiple of image_size; the model cuts windows
    unused: tuple[str, ...] = ()  # fields of the section without effect
    adversarial: bool = False  # repairs images in a frozen autoencoder, against a discriminator that can `spot` them

    @property
    def is_classifier(self) -> bool:
        """Whether the model is a classifier on the backbone."""
        return "head" in self.options

    def loaded_size(self, image_size: int) -> int:
        """Return the pixels per side of the images that the model gets."""
        return round(self.image_scale * image_size)

    def model_class(self) -> Any:
        """Return the class of the model; imports TensorFlow."""
        module, _, name = self.model.partition(":")
        return getattr(importlib.import_module(module), name)


STAGES: Mapping[str, Stage] = {
    "autoencoder": Stage(
        "the autoencoder's encoder",
        "autoencoder_training",
        "lts.models.autoencoder:Autoencoder",
        network="encoder",
        layers="encoder",
        unused=("repair_learning_rate", "repair_every", "shows"),
    ),
    "gan": Stage(
        "ours",
        "gan_training",
        "lts.models.gan:DamageRepairGAN",
        options=("classes",),
        network="discriminator",
        adversarial=True,
    ),
    "rotation": Stage(
        "rotation prediction",
        "gan_training",
        "lts.models.classifier:RotationPredictor",
        options=("head", "frozen"),
        classes=4,
        unused=("repair_learning_rate", "repair_every", "shows"),
    ),
    "lci": Stage(
        "limited context inpainting",
        "gan_training",
        "lts.models.lci:TransformationClassifier",
        options=("head", "frozen"),
        classes=6,
        unused=("shows",),
        image_scale=1.25,  # windows of 64 pixels from images of 80 (LCI release, STL-10)
    ),
    "supervised": Stage(
        "supervised",
        "gan_training",
        "lts.models.classifier:SupervisedClassifier",
        options=("classes", "head", "frozen"),
        classes=4,
        unused=("repair_learning_rate", "repair_every", "shows"),
        labelled=True,
    ),
}
# Trainings of `experiments` describe themselves in a `Task`. All have the schedule of stage 2.
OTHER_SECTION = "gan_training"


def section_of(stage: str) -> str:
    """Return the section of the configuration with a training's schedule."""
    return STAGES[stage].section if stage in STAGES else OTHER_SECTION
