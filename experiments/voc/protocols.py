"""Protocols of the three VOC tasks.

A protocol holds every value that decides a result besides the model and the images. Each help text is tagged with the
source of the value: (Kraehenbuehl et al. 2016) is the public script of their VOC classification, (FCN) the public
solver of Long et al.'s FCN-AlexNet, (Fast R-CNN) Girshick 2015 and its release, (AlexNet) Krizhevsky et al. 2012,
(release) the authors' code of this method, (ours) chosen in this project.
"""

import dataclasses
from typing import Any, ClassVar

from lts.config import ConfigError
from lts.config.fields import check_fields, field
from lts.config.registries import OPTIMIZERS

CONVOLUTIONS = 5  # of the backbone
RULE_HELP = "average precision of the headline: 11-point (VOC 2007) | area; both are reported"


@dataclasses.dataclass(frozen=True)
class VocProtocol:
    """Schedule, optimizer and statistics that the three tasks share.

    `ConfigError` is raised for a value outside of its bounds.
    """

    steps: int = field(1500, "training steps (ours)", minimum=1)
    batch_size: int = field(16, "images per step (ours)", minimum=1)
    optimizer: str = field(
        "adam",
        "adam, linear decay to 1 % as all but sgd (ours); sgd, a rate that falls in steps (Fast R-CNN)",
        choices=OPTIMIZERS,
    )
    learning_rate: float = field(1e-3, "first learning rate (ours)", above=0)
    momentum: float = field(0.9, "momentum of sgd (Fast R-CNN; FCN)", minimum=0, below=1)
    rate_steps: int = field(0, "sgd: steps between two falls of the learning rate; 0: no fall (ours)", minimum=0)
    rate_factor: float = field(0.1, "sgd: factor of each fall (Fast R-CNN)", above=0, maximum=1)
    global_clipnorm: float = field(0.0, "largest global norm of a step's gradient; 0: not clipped (ours)", minimum=0)
    weight_decay: float = field(5e-5, "L2 on all trained kernels (release)", minimum=0)
    frozen: int = field(0, "number of first convolutions that are not trained (ours)", minimum=0, maximum=CONVOLUTIONS)
    batch_norm: str = field(
        "inference",
        "statistics in trained convolutions: inference (those of the export) | batch (ours)",
        choices=["inference", "batch"],
    )
    precision: str | None = field(
        None,
        "precision of the backbone's activations; none: as the model was trained (ours)",
        choices=["float32", "bfloat16"],
    )
    seeds: tuple[int, ...] = field(
        (1,),
        "seeds of head, order, augmentation and dropout; the mean over them is reported (ours)",
        minimum=0,
        below=2**30,
        min_length=1,
        distinct=True,
    )
    resamples: int = field(1000, "resamples of the bootstrap over test images (ours)", minimum=1)
    confidence: float = field(0.95, "level of the intervals (ours)", above=0, below=1)
    bootstrap_seed: int = field(1, "seed of the bootstrap (ours)", minimum=0)
    name: str = "small"  # "custom" where another value differs from the named protocol

    bias_gradient_factor: ClassVar[float] = 2.0  # biases learn at twice the rate (release; Fast R-CNN; FCN)
    STATISTICS: ClassVar[tuple[str, ...]] = ("seeds", "resamples", "confidence", "bootstrap_seed")
    AFTERWARDS: ClassVar[tuple[str, ...]] = ()  # further fields that do not affect training

    def __post_init__(self) -> None:
        check_fields(self)

    def of_training(self) -> dict[str, Any]:
        """Return the fields that decide the weights, as JSON holds them.

        A run with another value of one of them is another run.
        """
        skipped = (*self.STATISTICS, *self.AFTERWARDS, "name")
        values = {}
        for name, value in dataclasses.asdict(self).items():
            if name not in skipped:
                values[name] = list(value) if isinstance(value, tuple) else value
        return values

    def replace(self, **changes: Any) -> "VocProtocol":
        """Return a copy with other values.

        The copy is named "custom" if it differs by more than seeds, intervals and precision.

        Args:
          **changes: field to value.
        """
        changed = dataclasses.replace(self, **changes)
        decisive = {field.name for field in dataclasses.fields(self)} - {*self.STATISTICS, "precision"}
        is_same = all(getattr(self, name) == getattr(changed, name) for name in decisive)
        return changed if is_same else dataclasses.replace(changed, name="custom")


@dataclasses.dataclass(frozen=True)
class ClassificationProtocol(VocProtocol):
    """Multi-label fine-tuning with a ten-crop test.

    The head is AlexNet's: pool_5, fc_1 and fc_2 with dropout and the configuration's `fc_units`, and a score per class.
    The loss is the sigmoid cross entropy, summed over classes, mean over images (Kraehenbuehl et al. 2016).
    """

    crop: int = field(0, "pixels per side that the network sees; 0: as the backbone was trained (ours)", minimum=0)
    scales: tuple[float, ...] = field(
        (1.0, 1.6),
        "range of the shorter side of training images in crops, drawn uniformly (ours)",
        above=0,
        length=2,
        ascending=True,
    )
    test_scale: float = field(1.125, "shorter side of test images in crops: about 256 / 227 (AlexNet)", above=0)
    dropout_keep: float = field(0.5, "probability that fc_1 and fc_2 keep a unit (AlexNet)", above=0, maximum=1)
    rule: str = field("11-point", RULE_HELP, choices=["11-point", "area"])

    AFTERWARDS: ClassVar[tuple[str, ...]] = ("test_scale", "rule")


@dataclasses.dataclass(frozen=True)
class SegmentationProtocol(VocProtocol):
    """Fully convolutional network with bilinear upsampling (FCN).

    pool_5, fc_1, fc_2 and scores are convolutions. "32s" scores pool_5, a map of twice the stride of conv_5: 32 pixels
    in the release, 16 in `small`. "16s" adds scores of conv_5 and upsamples half as much. The loss is the mean cross
    entropy over all labelled pixels of the batch.
    """

    batch_size: int = field(8, "images per step (ours)", minimum=1)
    crop: int = field(
        160, "pixels per side of training crops; pixels outside of the image are ignored (ours)", minimum=0
    )
    scales: tuple[float, ...] = field(
        (0.75, 1.5),
        "range of the scale of training images, drawn log-uniformly (ours)",
        above=0,
        length=2,
        ascending=True,
    )
    form: str = field("16s", "32s: scores of pool_5 | 16s: and of conv_5 (FCN)", choices=["32s", "16s"])
    fc_kernel: int = field(
        3, "kernel of fc_1 in cells of pool_5 (ours; 6 in FCN-AlexNet, from a trained classifier)", minimum=1
    )
    dropout_keep: float = field(0.5, "probability that fc_1 and fc_2 keep a unit (FCN)", above=0, maximum=1)


@dataclasses.dataclass(frozen=True)
class DetectionProtocol(VocProtocol):
    """Fast R-CNN with multi-scale training and single-scale tests.

    A step takes regions of a few images. The loss is the mean over regions of softmax cross entropy and smooth L1.
    Batch norm keeps the statistics of the export, because two images per batch are too few to estimate them.
    """

    batch_size: int = field(2, "images per step (Fast R-CNN)", minimum=1)
    regions: int = field(128, "regions per step, over all its images (Fast R-CNN)", minimum=1)
    positive_share: float = field(
        0.25, "largest fraction of objects among the regions (Fast R-CNN)", above=0, maximum=1
    )
    positive_iou: float = field(0.5, "least overlap of a region and its object (Fast R-CNN)", above=0, maximum=1)
    negative_iou: float = field(
        0.1, "least overlap of a hard negative; easy ones fill up the batch (Fast R-CNN)", minimum=0, maximum=1
    )
    sides: tuple[int, ...] = field(
        (128, 160, 192), "pixels of the shorter side, one drawn for each image (ours)", minimum=1, min_length=1
    )
    longest: int = field(320, "largest number of pixels of the longer side (ours)", minimum=1)
    test_side: int = field(160, "pixels of the shorter side of test images (ours)", minimum=1)
    cells: int = field(6, "cells per side of a pooled region: AlexNet's pool_5 (Fast R-CNN)", minimum=1)
    units: tuple[int, ...] = field((512, 512), "units of the fully connected layers (ours)", minimum=1, min_length=1)
    dropout_keep: float = field(
        0.5, "probability that the fully connected layers keep a unit (AlexNet)", above=0, maximum=1
    )
    rescale: bool = field(False, "rescale the backbone on training images first (Kraehenbuehl et al. 2016)")
    threshold: float = field(0.001, "least score of a detection (ours)", minimum=0, maximum=1)
    suppression: float = field(
        0.3, "overlap above which the weaker detection of a class is dropped (Fast R-CNN)", minimum=0, maximum=1
    )
    detections: int = field(100, "largest number of detections per image (ours)", minimum=1)
    rule: str = field("11-point", RULE_HELP, choices=["11-point", "area"])

    AFTERWARDS: ClassVar[tuple[str, ...]] = ("test_side", "threshold", "suppression", "detections", "rule")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regions % self.batch_size:
            raise ConfigError(
                f"regions must be a multiple of batch_size={self.batch_size}. Received: regions={self.regions}"
            )


# By the value of --protocol, for each task. `small` is for some hundred images and minutes on a CPU (ours).
CLASSIFICATION = {
    "small": ClassificationProtocol(),
    # trainval -> test. Their script scales images by 0.5 to 2 and tests ten random crops; here no image is smaller than
    # the crop and the ten crops are AlexNet's fixed ones (ours), and batch norm keeps the export's statistics (ours).
    "voc2007": ClassificationProtocol(
        steps=80_000,  # (Kraehenbuehl et al. 2016)
        batch_size=16,  # (Kraehenbuehl et al. 2016)
        optimizer="sgd",  # (Kraehenbuehl et al. 2016)
        learning_rate=1e-3,  # (Kraehenbuehl et al. 2016)
        rate_steps=10_000,  # (Kraehenbuehl et al. 2016)
        rate_factor=0.5,  # (Kraehenbuehl et al. 2016)
        global_clipnorm=10.0,  # (Kraehenbuehl et al. 2016)
        weight_decay=1e-6,  # (Kraehenbuehl et al. 2016)
        crop=227,  # (AlexNet)
        scales=(1.0, 2.0),  # (ours)
        name="voc2007",
    ),
}
SEGMENTATION = {
    "small": SegmentationProtocol(),
    # train -> val.
    "voc2012": SegmentationProtocol(
        steps=100_000,  # (FCN)
        batch_size=20,  # (FCN: a step adds up 20 images)
        optimizer="sgd",  # (FCN)
        learning_rate=1e-4,  # (FCN)
        weight_decay=5e-4,  # (FCN)
        crop=480,  # theirs are whole images, one at a time (ours)
        scales=(0.75, 1.5),  # theirs are as they are (ours)
        form="32s",  # (FCN: the only form of its AlexNet)
        fc_kernel=6,  # (FCN)
        name="voc2012",
    ),
}
DETECTION = {
    # animals_voc takes about five minutes on two cores (ours).
    "small": DetectionProtocol(learning_rate=5e-4),
    # trainval -> test: Fast R-CNN's schedule, trained at several scales and tested at one. Kraehenbuehl et al. (2016)
    # have the backbone rescaled, which is --rescale; their own schedule of detection was not found.
    "voc2007": DetectionProtocol(
        steps=40_000,  # (Fast R-CNN)
        optimizer="sgd",  # (Fast R-CNN)
        learning_rate=1e-3,  # (Fast R-CNN)
        rate_steps=30_000,  # (Fast R-CNN)
        weight_decay=5e-4,  # (Fast R-CNN)
        sides=(480, 576, 688, 864, 1200),  # (Fast R-CNN: those of SPPnet)
        longest=2000,  # (Fast R-CNN)
        test_side=600,  # (Fast R-CNN: single scale)
        units=(4096, 4096),  # (AlexNet)
        name="voc2007",
    ),
}
