"""Everything that decides the result of a probe, or of fine-tuning, besides the model and the images."""

import dataclasses
from typing import ClassVar

CLASSIFIERS = ("ridge", "logistic")
POOLS = ("average", "max")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Linear probes: how features are pooled, which classifier reads them, how sure its accuracy is."""

    KIND: ClassVar[str] = "linear_probe"  # of the results file
    classifier: str = "ridge"  # ridge | logistic
    pool: str = "average"  # average | max
    dimensions: int = 9000  # values a layer is pooled to, about
    validation: float = 0.2  # of the training images of each class: regularisation is chosen on them
    resamples: int = 10000  # of the bootstrap
    confidence: float = 0.95  # of the intervals
    seed: int = 1  # of the validation split and the bootstrap
    name: str = "ridge"


@dataclasses.dataclass(frozen=True)
class FoldsProtocol(Protocol):
    """STL-10's own: a linear probe on each of its ten folds of 1,000 labels, mean and deviation over the folds."""

    classifier: str = "logistic"
    name: str = "stl10_folds"
    folds: str = ""  # digest of the folds


EXTRACTED = {  # features are extracted once
    "logistic": Protocol(classifier="logistic", name="logistic"),  # multinomial logistic regression: for one's own data
    "ridge": Protocol(),  # least squares to the labels: as accurate, half the time; what quickstart runs
    "stl10_folds": FoldsProtocol(),
}


@dataclasses.dataclass(frozen=True)
class SgdProtocol:
    """Linear heads on frozen features, trained by gradient descent over augmented images, all heads in one pass.

    A field that is None does not apply to the protocol.
    """

    KIND: ClassVar[str] = "sgd_probe"  # of the results file
    LEAST_IMAGES: ClassVar[int] = 1  # training images of a class: none are held out

    name: str
    epochs: int  # passes over the training images
    learning_rate: float  # at the beginning
    layers: tuple[str, ...] = ()  # probed where --layers names none; (): all
    training_batch_size: int = 192
    image_size: int = 227  # pixels a side that the backbone sees; 0: the model's own
    augmentation: str = "crops"  # random crops and mirroring of the images at `margin` times the size | pretraining
    margin: float | None = 256 / 227  # shorter side of the image that crops are cut from, over `image_size`
    views: int = 1  # of a test image: 1, the central crop | 10, also the corners and all mirrored; mean of the softmax
    backbone_training: bool = False  # frozen backbone in training mode: batch norm by the batch's statistics
    pool: str | None = "max"  # average | max; None: whole maps
    dimensions: int | None = 9000  # values a layer is pooled to, about
    windows: tuple[tuple[str, int, str], ...] = ()  # instead of `dimensions`: layer, kernel = stride, padding
    norm_decay: float | None = 0.9  # of a batch norm without scale and shift before the linear map; None: there is none
    norm_epsilon: float | None = 1e-5
    initialiser: str = "normal"  # of the linear map: normal | truncated_normal | fan_in
    deviation: float | None = (2 / 1000) ** 0.5
    weight_decay: float = 5e-4  # weight_decay * sum(w ** 2) / 2 is added to the loss
    decay_biases: bool = True
    resamples: int = 10000  # of the bootstrap
    confidence: float = 0.95  # of the intervals
    seed: int = 1  # of heads, order of the images, augmentation and bootstrap


@dataclasses.dataclass(frozen=True)
class SgdProtocol(SgdProtocol):
    """With Nesterov momentum and a rate that falls in steps."""

    optimizer: ClassVar[str] = "sgd"  # with `nesterov`: as `lts.training.optimizers.build_optimizer` reads it
    nesterov: ClassVar[bool] = True
    momentum: float = 0.9
    drops: tuple[float, ...] = ()  # fractions of the steps from which on the next rate counts
    rates: tuple[float, ...] = (1.0, 0.1, 0.02, 0.004, 0.0008)  # times `learning_rate`


@dataclasses.dataclass(frozen=True)
class AdamProtocol(SgdProtocol):
    """With the release's Adam and its linear decay."""

    optimizer: ClassVar[str] = "adam"
    beta_1: float = 0.5
    beta_2: float = 0.999
    epsilon: float = 1e-5
    bias_gradient_factor: float = 2.0  # gradients of biases count this often
    end_lr_fraction: float = 0.01  # last rate as a fraction of the first
    decay_fraction: float = 0.9  # linear decay over this part of the steps


ALEXNET = ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5")
SGD = {
    # RotNet's release (Gidaris et al., 2018): rates 0.1, 0.01, 0.002, 0.0004, 0.00008 from epochs 0, 5, 15, 25, 35 on,
    # batch norm with PyTorch's constants before the linear map, sd sqrt(2 / classes) for ImageNet's 1,000. 40 epochs
    # (ours): the last rate as long as the first. Other numbers of epochs move the drops in proportion.
    "rotnet": SgdProtocol(
        name="rotnet", layers=ALEXNET, epochs=40, learning_rate=0.1, drops=(5 / 40, 15 / 40, 25 / 40, 35 / 40)
    ),
    # LCI's release (Jenni et al., 2020). Epochs and batch size on ImageNet are (ours); its script for STL-10 takes
    # 64-pixel crops of the 96-pixel images, 900 epochs, batch 64.
    "lci": SgdProtocol(
        name="lci",
        layers=ALEXNET,
        epochs=65,
        learning_rate=0.1,
        drops=(0.08, 0.4, 0.7, 0.9),
        views=10,
        pool="average",
        dimensions=None,
        windows=tuple(zip(ALEXNET, (6, 4, 3, 3, 2), ("SAME", "VALID", "SAME", "SAME", "VALID"), strict=True)),
        norm_decay=0.975,
        norm_epsilon=1e-3,
        initialiser="fan_in",
        deviation=None,
        decay_biases=False,
    ),
    # The release of this paper on STL-10, trap included: the frozen backbone runs in training mode, so that every batch
    # norm of it (in the release conv_5's) normalises with the statistics of the batch while heads are trained, and its
    # moving averages go on moving; the test then normalises with these.
    "stl10_release": AdamProtocol(
        name="stl10_release",
        layers=("conv_5",),
        epochs=400,
        learning_rate=1e-3,
        training_batch_size=128,
        image_size=0,
        augmentation="pretraining",
        margin=None,
        backbone_training=True,
        pool=None,
        dimensions=None,
        norm_decay=None,
        norm_epsilon=None,
        initialiser="truncated_normal",
        deviation=0.005,
        weight_decay=5e-5,
        decay_biases=False,
    ),
}

LINEAR = {**EXTRACTED, **SGD}  # by the value of --protocol of linear_probe


@dataclasses.dataclass(frozen=True)
class KnnProtocol:
    """Nearest neighbours by cosine similarity: nothing is fitted but k."""

    KIND: ClassVar[str] = "knn_probe"  # of the results file
    neighbours: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200)  # values of k to choose from
    pool: str = "average"
    dimensions: int = 9000
    validation: float = 0.2  # of the training images of each class: k is chosen on them
    resamples: int = 10000
    confidence: float = 0.95
    seed: int = 1
    name: str = "knn"


@dataclasses.dataclass(frozen=True)
class FewShotProtocol:
    """Linear classifiers from a share of the labels, drawn several times."""

    KIND: ClassVar[str] = "few_shot"  # of the results file
    shares: tuple[float, ...] = (1.0, 5.0, 10.0)  # percent of the training images of each class
    draws: int = 5
    classifier: str = "ridge"
    pool: str = "average"
    dimensions: int = 9000
    parts: int = 5  # of the cross-validation inside a draw that chooses the regularisation
    confidence: float = 0.95
    seed: int = 1  # of the draws
    name: str = "few_shot"


@dataclasses.dataclass(frozen=True)
class FinetuneProtocol:
    """The backbone with a new head, trained on labels: from the model's weights, or from random ones.

    The augmentation is that of the model's own training, the optimizer the project's: Adam with beta 0.5 and 0.999 and
    a rate that decays linearly to 1 %. Nothing is chosen: the last weights are tested once, in float32. The defaults
    are ours, for a few thousand images on a CPU.
    """

    KIND: ClassVar[str] = "finetune"  # of the results file
    head: str = "fc"  # fc: as the discriminator's, with dropout | linear: of conv_5's map | pooled: linear of its mean
    train_layers: int = 5  # this many of the last convolutions are trained, those before them are frozen
    pretrained: bool = True  # False: begins at random weights: the upper reference
    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 5e-5  # L2 on all kernels (release)
    precision: str | None = None  # of activations in training: float32 | bfloat16; None: as the model was trained
    seeds: tuple[int, ...] = (1,)  # of head, order, augmentation and dropout; the mean over them is reported
    resamples: int = 10000
    confidence: float = 0.95
    seed: int = 1  # of the bootstrap
    name: str = "finetune"


# By the value of --protocol. The release's transfer trains the linear head of 400 epochs alone (its num_conv2train,
# here train_layers, is 0); its num_conv2train of 1 to 5 is this.
FINETUNE = {
    "default": FinetuneProtocol(),
    "release": FinetuneProtocol(head="linear", epochs=400, batch_size=128, name="finetune_release"),
}
SUPERVISED = {  # the same from scratch
    key: dataclasses.replace(each, pretrained=False, name=each.name.replace("finetune", "supervised"))
    for key, each in FINETUNE.items()
}
