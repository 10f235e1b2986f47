"""Everything that decides the result of a VOC task besides the model and the images.

Every field says where its value is from: (Kraehenbuehl et al. 2016) is the public script of their VOC classification,
(FCN) the public solver of Long et al.'s FCN-AlexNet, (Fast R-CNN) Girshick 2015 and its release, (AlexNet) Krizhevsky
et al. 2012, (release) the authors' code of this method, (ours) chosen here. Its line is the help of its flag.
"""

import dataclasses
from typing import Any, ClassVar

from lts.config.fields import field
from lts.utils.errors import UserError

CHOICES = {
    "optimizer": ("adam", "sgd"),
    "batch_norm": ("inference", "batch"),
    "precision": (None, "float32", "bfloat16"),
    "rule": ("11-point", "area"),
    "form": ("32s", "16s"),
}
LAYERS = 5  # convolutions of the backbone


class ProtocolError(UserError):
    """A protocol with a value that cannot be."""

    exit_status = 2


@dataclasses.dataclass(frozen=True)
class VocProtocol:
    """What the three tasks share: schedule, optimizer, which part of the backbone learns, how sure the result is.

    Raises `ProtocolError` when a value cannot be.
    """

    steps: int = field(1500, "training steps (ours)")
    batch_size: int = field(16, "images in one step (ours)")
    optimizer: str = field(
        "adam", "adam: the project's, linear decay to 1 % (ours) | sgd: momentum, biases at twice the rate (Fast R-CNN)"
    )
    learning_rate: float = field(1e-3, "first rate (ours)")
    momentum: float = field(0.9, "of sgd (Fast R-CNN; FCN)")
    rate_steps: int = field(0, "of sgd: steps after which the rate falls, again and again; 0: never (ours)")
    rate_factor: float = field(0.1, "of sgd: what it falls to (Fast R-CNN)")
    global_clipnorm: float = field(0.0, "largest global norm of a step's gradient; 0: not clipped (ours)")
    weight_decay: float = field(5e-5, "L2 on all kernels that learn (release)")
    frozen: int = field(0, "so many first convolutions stay as they are (ours)")
    batch_norm: str = field(
        "inference", "of convolutions that learn: inference: the export's statistics | batch: those of the batch (ours)"
    )
    precision: str | None = field(
        None, "of the backbone's activations: float32 | bfloat16; None: as the model was trained (ours)"
    )
    seeds: tuple[int, ...] = field(
        (1,), "of head, order, augmentation and dropout; the mean over them is reported (ours)"
    )
    resamples: int = field(1000, "of the bootstrap over test images (ours)")
    confidence: float = field(0.95, "of the intervals (ours)")
    bootstrap_seed: int = field(1, "of the bootstrap (ours)")
    name: str = field("small", "of the protocol; 'custom' with other values than the named one has")

    bias_gradient_factor: ClassVar[float] = 2.0  # of sgd: biases learn at twice the rate (Fast R-CNN; FCN)
    STATISTICS: ClassVar[tuple[str, ...]] = ("seeds", "resamples", "confidence", "bootstrap_seed")
    AFTERWARDS: ClassVar[tuple[str, ...]] = ()  # what training does not see, beside those

    def __post_init__(self) -> None:
        _check(self)

    def of_training(self) -> dict[str, Any]:
        """What decides the weights, as JSON holds it: a run with another value of it is another run."""
        left_out = (*self.STATISTICS, *self.AFTERWARDS, "name")
        kept = {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    def replace(self, **changes: Any) -> "VocProtocol":
        """A copy with other values, called "custom" if it is another protocol by more than seeds and intervals."""
        changed = dataclasses.replace(self, **changes)
        own = {field.name for field in dataclasses.fields(self)} - {*self.STATISTICS, "precision"}
        same = all(getattr(self, name) == getattr(changed, name) for name in own)
        return changed if same else dataclasses.replace(changed, name="custom")


@dataclasses.dataclass(frozen=True)
class ClassificationProtocol(VocProtocol):
    """Multi-label fine-tuning and a ten-crop test.

    The head is AlexNet's: pool_5, fc_1 and fc_2 with dropout, as wide as the configuration's `fc_units`, and a score a
    class. The loss is the sigmoid cross entropy, summed over classes, mean over images (Kraehenbuehl et al. 2016).
    """

    crop: int = field(0, "pixels a side of what the network sees; 0: as the backbone was trained (ours)")
    scales: tuple[float, ...] = field((1.0, 1.6), "shorter side of training images in crops, drawn uniformly (ours)")
    test_scale: float = field(1.125, "shorter side of test images in crops: 256 / 227, about (AlexNet)")
    dropout_keep: float = field(0.5, "of fc_1 and fc_2 (AlexNet)")
    rule: str = field("11-point", "average precision of the headline: 11-point (VOC 2007) | area; both are reported")

    AFTERWARDS: ClassVar[tuple[str, ...]] = ("test_scale", "rule")


@dataclasses.dataclass(frozen=True)
class SegmentationProtocol(VocProtocol):
    """A fully convolutional network (FCN): pool_5, fc_1, fc_2 and scores as convolutions, enlarged bilinearly.

    "32s" scores pool_5, a map of twice conv_5's stride: 32 pixels in the release, 16 in `small`. "16s" adds scores of
    conv_5, the map before that pool, and so enlarges half as much. The loss is the mean cross entropy over all pixels
    of the batch that have a label.
    """

    batch_size: int = field(8, "images in one step (ours)")
    crop: int = field(160, "pixels a side of training crops; what lies outside of the image is ignored (ours)")
    scales: tuple[float, ...] = field((0.75, 1.5), "of training images, drawn log-uniformly (ours)")
    form: str = field("16s", "32s: scores of pool_5 | 16s: and of conv_5 (FCN)")
    fc_kernel: int = field(3, "of fc_1, cells of pool_5 (ours; FCN-AlexNet's 6 come with a trained classifier)")
    dropout_keep: float = field(0.5, "of fc_1 and fc_2 (FCN)")


@dataclasses.dataclass(frozen=True)
class DetectionProtocol(VocProtocol):
    """Fast R-CNN: regions of a few images a step, at one of several scales, and single-scale tests.

    The loss is the mean over regions of softmax cross entropy and smooth L1. Batch norm keeps the export's statistics,
    for batches of two images have none of their own.
    """

    batch_size: int = field(2, "images in one step (Fast R-CNN)")
    regions: int = field(128, "regions in one step, of all its images (Fast R-CNN)")
    positive_share: float = field(0.25, "most objects among the regions (Fast R-CNN)")
    positive_iou: float = field(0.5, "least overlap of a region and its object (Fast R-CNN)")
    negative_iou: float = field(0.1, "least overlap of a hard negative; easy ones fill up (Fast R-CNN)")
    sides: tuple[int, ...] = field((128, 160, 192), "pixels of the shorter side, one drawn for each image (ours)")
    longest: int = field(320, "pixels that the longer side has at most (ours)")
    test_side: int = field(160, "pixels of the shorter side of test images (ours)")
    cells: int = field(6, "a side of a pooled region: AlexNet's pool_5 (Fast R-CNN)")
    units: tuple[int, ...] = field((512, 512), "of the fully connected layers (ours)")
    dropout_keep: float = field(0.5, "of the fully connected layers (AlexNet)")
    rescale: bool = field(False, "rescale the backbone on training images first (Kraehenbuehl et al. 2016)")
    threshold: float = field(0.001, "least score of a detection (ours)")
    suppression: float = field(0.3, "overlap above which the weaker detection of a class goes (Fast R-CNN)")
    detections: int = field(100, "most of an image (ours)")
    rule: str = field("11-point", "average precision of the headline: 11-point (VOC 2007) | area; both are reported")

    AFTERWARDS: ClassVar[tuple[str, ...]] = ("test_side", "threshold", "suppression", "detections", "rule")


def _check(protocol: VocProtocol) -> None:
    """Raises `ProtocolError` at the first value of a protocol that cannot be."""
    values = dataclasses.asdict(protocol)
    wanted = {
        **dict.fromkeys(("steps", "batch_size", "resamples", "fc_kernel"), (lambda v: v >= 1, "at least 1")),
        **dict.fromkeys(("learning_rate", "test_scale"), (lambda v: v > 0, "positive")),
        **dict.fromkeys(("rate_factor", "dropout_keep"), (lambda v: 0 < v <= 1, "in (0, 1]")),
        **dict.fromkeys(
            ("rate_steps", "global_clipnorm", "weight_decay", "crop", "bootstrap_seed"),
            (lambda v: v >= 0, "at least 0"),
        ),
        **dict.fromkeys(("longest", "test_side", "cells", "detections"), (lambda v: v >= 1, "at least 1")),
        **dict.fromkeys(("positive_share", "positive_iou"), (lambda v: 0 < v <= 1, "in (0, 1]")),
        **dict.fromkeys(("negative_iou", "threshold", "suppression"), (lambda v: 0 <= v <= 1, "in [0, 1]")),
        **dict.fromkeys(("sides", "units"), (lambda v: v and min(v) >= 1, "numbers of at least 1")),
        "regions": (
            lambda v: v >= 1 and v % protocol.batch_size == 0,
            f"as many for each of the {protocol.batch_size} images of a step",
        ),
        "momentum": (lambda v: 0 <= v < 1, "in [0, 1)"),
        "confidence": (lambda v: 0 < v < 1, "in (0, 1)"),
        "frozen": (lambda v: 0 <= v <= LAYERS, f"a number of layers, 0 to {LAYERS}"),
        "scales": (lambda v: len(v) == 2 and 0 < v[0] <= v[1], "two positive numbers, the smaller first"),
        "seeds": (
            lambda v: v and len(set(v)) == len(v) and all(0 <= seed < 2**30 for seed in v),
            "different numbers, at least 0 and below 2**30",
        ),
        **{name: (lambda v, o=options: v in o, " | ".join(map(str, options))) for name, options in CHOICES.items()},
    }
    for name, (holds, what) in wanted.items():
        if name in values and not holds(values[name]):
            raise ProtocolError(f"{name} must be {what}. Received: {name}={values[name]!r}")


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
