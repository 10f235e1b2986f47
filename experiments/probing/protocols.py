"""Protocols of the probes and of fine-tuning.

A protocol holds every value that decides a result besides the model and the images.
"""

import dataclasses
from typing import ClassVar

from lts.config import HEADS
from lts.config.fields import CheckedFields, field
from lts.config.registries import OPTIMIZERS
from lts.utils.registry import Registry

# Each entry is a `LinearClassifier`.
CLASSIFIERS = Registry(
    "linear classifier",
    {"ridge": "experiments.probing.linear:RIDGE", "logistic": "experiments.probing.linear:LOGISTIC"},
)
POOLS = ("average", "max")
PRECISIONS = ("float32", "bfloat16")
HELD_OUT = "fraction of the training images of each class that is held out to choose on"


@dataclasses.dataclass(frozen=True)
class PooledProtocol(CheckedFields):
    """Shared fields of probes on pooled features.

    One value, such as k or the regularisation, is chosen on held-out training images.
    """

    pool: str = field("average", "pooling of feature maps", choices=POOLS)
    dimensions: int = field(9000, "approximate number of values a layer is pooled to", minimum=1)
    validation: float = field(0.2, HELD_OUT, above=0, below=1)
    resamples: int = field(10000, "resamples of the bootstrap", minimum=1)
    confidence: float = field(0.95, "level of the intervals", above=0, below=1)
    seed: int = field(1, "seed of the validation split and the bootstrap", minimum=0)


@dataclasses.dataclass(frozen=True)
class Protocol(PooledProtocol):
    """Linear probe on features that are extracted once."""

    classifier: str = field("ridge", "linear classifier", choices=CLASSIFIERS)
    name: str = "ridge"


@dataclasses.dataclass(frozen=True)
class FoldsProtocol(Protocol):
    """Linear probe on each of STL-10's ten folds of 1,000 labels.

    The mean and the deviation over the folds are reported.
    """

    classifier: str = field("logistic", "linear classifier", choices=CLASSIFIERS)
    name: str = "stl10_folds"
    folds: str = ""  # digest of the folds


EXTRACTED = {  # features are extracted once
    # Least squares on the labels, the default: on conv_3 of preset `small` 70.7 % in 8 s.
    "ridge": Protocol(),
    # Multinomial logistic regression, as in many papers: 70.4 % on the same layer, several times as long.
    "logistic": Protocol(classifier="logistic", name="logistic"),
    "stl10_folds": FoldsProtocol(),
}
LAST_LAYER = "last"  # in `SgdProtocol.layers`: the last layer of the model


@dataclasses.dataclass(frozen=True)
class SgdProtocol(CheckedFields):
    """Linear heads on frozen features, trained over augmented images.

    Gradient descent trains the heads of all layers in one pass. A field that is None does not apply to the protocol.
    """

    name: str
    epochs: int = field(40, "passes over the training images", minimum=1)
    learning_rate: float = field(0.1, "first learning rate", above=0)
    layers: tuple[str, ...] = ()  # probed where --layers is not given, or `LAST_LAYER`; (): all
    training_batch_size: int = field(192, "training images per step", minimum=1)
    image_size: int = field(227, "pixels per side that the backbone sees; 0: the model's own", minimum=0)
    # crops: random crops and mirroring of images at `margin` times the size. pretraining: the model's own augmentation.
    augmentation: str = field("crops", "augmentation of training images", choices=["crops", "pretraining"])
    margin: float | None = 256 / 227  # shorter side of the image that crops are cut from, over `image_size`
    # 1: the central crop. 10: the corners and all mirrored too, with the mean of their softmax.
    views: int = field(1, "views of a test image: 1 or 10", minimum=1, maximum=10)
    backbone_training: bool = False  # frozen backbone in training mode: batch norm by the batch's statistics
    pool: str | None = field("max", "pooling of feature maps", choices=POOLS)  # None: whole maps
    dimensions: int | None = field(9000, "approximate number of values a layer is pooled to", minimum=1)
    windows: tuple[tuple[str, int, str], ...] = ()  # instead of `dimensions`: layer, kernel = stride, padding
    norm_decay: float | None = 0.9  # of a batch norm without scale and shift before the linear map; None: there is none
    norm_epsilon: float | None = 1e-5
    initialiser: str = field("normal", "of the linear map", choices=["normal", "truncated_normal", "fan_in"])
    deviation: float | None = (2 / 1000) ** 0.5
    weight_decay: float = 5e-4  # weight_decay * sum(w ** 2) / 2 is added to the loss
    decay_biases: bool = True
    resamples: int = field(10000, "resamples of the bootstrap", minimum=1)
    confidence: float = field(0.95, "level of the intervals", above=0, below=1)
    seed: int = field(1, "seed of heads, image order, augmentation and bootstrap", minimum=0)


@dataclasses.dataclass(frozen=True)
class MomentumProtocol(SgdProtocol):
    """Nesterov momentum and a learning rate that falls in steps."""

    optimizer: ClassVar[str] = "sgd"  # with `nesterov`, read by `lts.training.optimizers.build_optimizer`
    nesterov: ClassVar[bool] = True
    momentum: float = 0.9
    drops: tuple[float, ...] = ()  # fractions of the steps at which the next rate begins
    rates: tuple[float, ...] = (1.0, 0.1, 0.02, 0.004, 0.0008)  # times `learning_rate`


@dataclasses.dataclass(frozen=True)
class AdamProtocol(SgdProtocol):
    """The release's Adam with its linear decay."""

    optimizer: ClassVar[str] = "adam"
    beta_1: float = 0.5
    beta_2: float = 0.999
    epsilon: float = 1e-5
    bias_gradient_factor: float = 2.0  # on the gradients of biases
    end_lr_fraction: float = 0.01  # last rate as a fraction of the first
    decay_fraction: float = 0.9  # fraction of the steps with linear decay


SGD = {
    # RotNet's release (Gidaris et al., 2018): rates 0.1, 0.01, 0.002, 0.0004, 0.00008 from epochs 0, 5, 15, 25, 35 on,
    # batch norm with PyTorch's constants before the linear map, sd sqrt(2 / classes) for ImageNet's 1,000. 40 epochs
    # (ours): the last rate lasts as long as the first. Other numbers of epochs move the drops in proportion.
    "rotnet": MomentumProtocol(name="rotnet", epochs=40, learning_rate=0.1, drops=(5 / 40, 15 / 40, 25 / 40, 35 / 40)),
    # LCI's release (Jenni et al., 2020). Epochs and batch size on ImageNet are (ours); its script for STL-10 takes
    # 64-pixel crops of the 96-pixel images, 900 epochs, batch 64.
    "lci": MomentumProtocol(
        name="lci",
        epochs=65,
        learning_rate=0.1,
        drops=(0.08, 0.4, 0.7, 0.9),
        views=10,
        pool="average",
        dimensions=None,
        windows=(
            ("conv_1", 6, "SAME"),
            ("conv_2", 4, "VALID"),
            ("conv_3", 3, "SAME"),
            ("conv_4", 3, "SAME"),
            ("conv_5", 2, "VALID"),
        ),
        norm_decay=0.975,
        norm_epsilon=1e-3,
        initialiser="fan_in",
        deviation=None,
        decay_biases=False,
    ),
    # The release of this paper on STL-10, trap included: the frozen backbone runs in training mode while heads are
    # trained. Every batch norm of it (in the release conv_5's) normalises with the statistics of the batch, and its
    # moving averages keep moving. The test normalises with the moved averages.
    "stl10_release": AdamProtocol(
        name="stl10_release",
        layers=(LAST_LAYER,),
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
class KnnProtocol(PooledProtocol):
    """Nearest neighbours by cosine similarity.

    Nothing is fitted. Only k is chosen.
    """

    neighbours: tuple[int, ...] = field(
        (1, 2, 5, 10, 20, 50, 100, 200), "values of k to choose from", minimum=1, min_length=1, distinct=True
    )
    name: str = "knn"


@dataclasses.dataclass(frozen=True)
class FewShotProtocol(CheckedFields):
    """Linear classifiers on a share of the labels, drawn several times."""

    shares: tuple[float, ...] = field(
        (1.0, 5.0, 10.0),
        "percent of the training images of each class",
        above=0,
        below=100,
        min_length=1,
        distinct=True,
    )
    draws: int = field(5, "draws of each share", minimum=2)
    classifier: str = field("ridge", "linear classifier", choices=CLASSIFIERS)
    pool: str = field("average", "pooling of feature maps", choices=POOLS)
    dimensions: int = field(9000, "approximate number of values a layer is pooled to", minimum=1)
    parts: int = field(5, "parts of the cross-validation that chooses the regularisation of a draw", minimum=2)
    confidence: float = field(0.95, "level of the intervals", above=0, below=1)
    seed: int = field(1, "seed of the draws", minimum=0)
    name: str = "few_shot"


@dataclasses.dataclass(frozen=True)
class NeighboursProtocol(CheckedFields):
    """What `experiments.neighbours` compares and shows."""

    max_images: int = field(10_000, "images to use, from the beginning of the split", minimum=2)
    shown: int = field(8, "images whose neighbours the page shows", minimum=1)
    neighbours: int = field(6, "neighbours of an image", minimum=1)
    clusters: int = field(10, "clusters of k-means", minimum=1)
    central: int = field(8, "images that the page shows of a cluster, the most central ones", minimum=1)
    duplicate_similarity: float = field(0.9, "least cosine similarity of near-duplicates", above=0, maximum=1)
    dimensions: int = field(2000, "approximate number of values a layer is pooled to", minimum=1)
    seed: int = field(1, "seed of the random weights and of the clusters", minimum=0)


@dataclasses.dataclass(frozen=True)
class FinetuneProtocol(CheckedFields):
    """Backbone with a new head, trained on labels.

    Training starts at the model's weights, or at random ones. The augmentation is that of the model's own training. The
    optimizer is one of the project's, by default Adam with beta 0.5 and 0.999. Its rate decays linearly to 1 %.
    No value is chosen: the last weights are tested once, in float32. The defaults are (ours), for a few thousand images
    on a CPU.
    """

    head: str = field("fc", "fc: fc_1 and fc_2 | linear: last map | pooled: linear map of its mean", choices=HEADS)
    train_layers: int | None = field(
        None, "number of last layers to train; 0: the head alone; none: all layers", minimum=0
    )
    pretrained: bool = True  # False: random weights, the upper reference
    epochs: int = field(40, "passes over the training images", minimum=1)
    batch_size: int = field(32, "images per training step", minimum=1)
    optimizer: str = field("adam", "adam is the release's, the others are (ours)", choices=OPTIMIZERS)
    learning_rate: float = field(1e-3, "first learning rate", above=0)
    weight_decay: float = field(5e-5, "L2 on all kernels (release); decoupled where the optimizer is adamw", minimum=0)
    precision: str | None = field(
        None, "precision of activations in training; none: as the model was trained", choices=PRECISIONS
    )
    seeds: tuple[int, ...] = field(
        (1,),
        "seeds of head, order, augmentation and dropout; the mean over them is reported",
        minimum=0,
        below=2**30,
        min_length=1,
        distinct=True,
    )
    resamples: int = field(10000, "resamples of the bootstrap", minimum=1)
    confidence: float = field(0.95, "level of the intervals", above=0, below=1)
    seed: int = field(1, "seed of the bootstrap", minimum=0)
    name: str = "finetune"


# By the value of --protocol. The release's transfer trains the linear head for 400 epochs. Its num_conv2train, 0 by
# default, is train_layers here.
FINETUNE = {
    "default": FinetuneProtocol(),
    "release": FinetuneProtocol(head="linear", epochs=400, batch_size=128, name="finetune_release"),
}
# The same from scratch.
SUPERVISED = {
    key: dataclasses.replace(protocol, pretrained=False, name=protocol.name.replace("finetune", "supervised"))
    for key, protocol in FINETUNE.items()
}
