"""Everything that decides the result of a VOC task besides the model and the images.

Sources of the constants: (Kraehenbuehl et al. 2016) is the public script of their VOC classification, (FCN) the public
solver of Long et al.'s FCN-AlexNet, (Fast R-CNN) Girshick 2015, (ours) chosen here.
"""

import dataclasses
from typing import Any, ClassVar

OPTIMIZERS = ("adam", "sgd")
BATCH_NORMS = ("inference", "batch")


@dataclasses.dataclass(frozen=True)
class VocProtocol:
    """What the three tasks share: schedule, optimizer, which part of the trunk learns, how sure the result is."""

    steps: int = 1500  # (ours)
    batch_size: int = 16  # (ours)
    optimizer: str = "adam"  # adam: the project's, linear decay to 1 % | sgd: momentum, biases at twice the rate (ours)
    learning_rate: float = 1e-3  # (ours)
    momentum: float = 0.9  # of sgd (Fast R-CNN; FCN)
    rate_steps: int = 0  # of sgd: the rate is multiplied by rate_factor after so many steps; 0: it is constant (ours)
    rate_factor: float = 0.1  # of sgd (Fast R-CNN)
    clip_norm: float = 0.0  # largest global norm of a step's gradient; 0: not clipped (ours)
    weight_decay: float = 5e-5  # L2 on all kernels that learn (release)
    frozen: int = 0  # the first so many convolutions stay as they are (ours)
    batch_norm: str = "inference"  # of trained layers: inference: the export's statistics | batch: the batch's (ours)
    precision: str | None = (
        None  # of the trunk's activations: float32 | bfloat16; None: as the model was trained (ours)
    )
    seeds: tuple[int, ...] = (1,)  # of head, order, augmentation and dropout; the mean over them is reported (ours)
    resamples: int = 1000  # of the bootstrap over test images (ours)
    confidence: float = 0.95  # of the intervals (ours)
    seed: int = 1  # of the bootstrap (ours)
    name: str = "small"

    AFTERWARDS: ClassVar[tuple[str, ...]] = ("seeds", "resamples", "confidence", "seed")  # nothing for training

    def of_training(self) -> dict[str, Any]:
        """What decides the weights, as JSON holds it: a run with another value of it is another run."""
        values = dataclasses.asdict(self)
        kept = {name: value for name, value in values.items() if name not in self.AFTERWARDS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


@dataclasses.dataclass(frozen=True)
class ClassificationProtocol(VocProtocol):
    """Multi-label fine-tuning and a ten-crop test.

    The head is AlexNet's: pool_5, fc_1, fc_2 with dropout, as wide as the configuration's `fc_width`, and a score a
    class. The loss is the sigmoid cross entropy, summed over classes, mean over images (Kraehenbuehl et al. 2016).
    """

    crop: int = 0  # pixels a side; 0: as the trunk was trained (ours)
    test_side: float = 1.125  # shorter side of test images, crops a side: AlexNet's 256 / 227 (ours)
    scales: tuple[float, ...] = (1.0, 1.6)  # shorter side of training images, crops a side (ours)
    dropout_keep: float = 0.5  # of fc_1 and fc_2 (AlexNet)
    rule: str = "11-point"  # of the headline: 11-point | area; both are reported (VOC 2007)
    name: str = "small"

    AFTERWARDS: ClassVar[tuple[str, ...]] = (*VocProtocol.AFTERWARDS, "rule", "test_side")


@dataclasses.dataclass(frozen=True)
class SegmentationProtocol(VocProtocol):
    """A fully convolutional network (FCN): pool_5, fc_1, fc_2 and scores as convolutions, enlarged bilinearly.

    "32s" scores pool_5, a map of twice conv_5's stride: 32 pixels in the release, 16 in `small`. "16s" adds scores of
    conv_5, the map before that pool, and so enlarges half as much. The loss is the mean cross entropy over all pixels
    of the batch that have a label.
    """

    batch_size: int = 8  # (ours)
    crop: int = 160  # pixels a side of training crops; what lies outside of the image is ignored (ours)
    scales: tuple[float, ...] = (0.75, 1.5)  # of training images, drawn log-uniformly (ours)
    form: str = "16s"  # 32s | 16s (FCN)
    fc_kernel: int = (
        3  # of fc_1, cells of pool_5; FCN-AlexNet has 6 with the classifier's weights, ours begin anew (ours)
    )
    dropout_keep: float = 0.5  # of fc_1 and fc_2 (FCN)
    name: str = "small"


# By the value of --protocol, for each task. `small` is for some hundred images and minutes on a CPU (ours).
CLASSIFICATION = {
    "small": ClassificationProtocol(),
    # trainval -> test. Their script scales images by 0.5 to 2 and takes ten random crops; the crops of test images
    # here are the ten fixed ones (ours), and the trunk's batch norm keeps its statistics (ours).
    "voc2007": ClassificationProtocol(
        steps=80_000,  # (Kraehenbuehl et al. 2016)
        batch_size=16,  # (Kraehenbuehl et al. 2016)
        optimizer="sgd",  # (Kraehenbuehl et al. 2016)
        learning_rate=1e-3,  # (Kraehenbuehl et al. 2016)
        rate_steps=10_000,  # (Kraehenbuehl et al. 2016)
        rate_factor=0.5,  # (Kraehenbuehl et al. 2016)
        clip_norm=10.0,  # (Kraehenbuehl et al. 2016)
        weight_decay=1e-6,  # (Kraehenbuehl et al. 2016)
        crop=227,  # (AlexNet)
        scales=(1.0, 2.0),  # never smaller than the crop; theirs are 0.5 to 2 of the image (ours)
        name="voc2007",
    ),
}
SEGMENTATION = {
    "small": SegmentationProtocol(),
    # train -> val.
    "voc2012": SegmentationProtocol(
        steps=100_000,  # (FCN)
        batch_size=20,  # (FCN: 20 images are one step)
        optimizer="sgd",  # (FCN)
        learning_rate=1e-4,  # (FCN)
        weight_decay=5e-4,  # (FCN)
        crop=480,  # theirs are whole images, one at a time (ours)
        scales=(0.75, 1.5),  # theirs are not scaled (ours)
        form="32s",  # (FCN: AlexNet's)
        fc_kernel=6,  # (FCN: AlexNet's)
        name="voc2012",
    ),
}
