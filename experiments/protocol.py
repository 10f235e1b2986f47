"""Everything that decides the result of a probe, or of fine-tuning, besides the model and the images."""

import dataclasses

CLASSIFIERS = ("ridge", "logistic")
POOLS = ("average", "max")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Linear probes: how features are pooled, which classifier reads them, how sure its accuracy is."""

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


# By the value of --protocol. All extract the features once.
LINEAR = {
    "fast": Protocol(classifier="logistic", name="fast"),  # multinomial logistic regression: for one's own data
    "ridge": Protocol(),  # least squares to the labels: as accurate, half the time; what quickstart runs
    "stl10_folds": FoldsProtocol(),
}


@dataclasses.dataclass(frozen=True)
class KnnProtocol:
    """Nearest neighbours by cosine similarity: nothing is fitted but k."""

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
    """The trunk with a new head, trained on labels: from the model's weights, or from random ones.

    The augmentation is that of the model's own training, the optimizer the project's: Adam with beta 0.5 and 0.999 and
    a rate that decays linearly to 1 %. Nothing is chosen: the last weights are tested once, in float32. The defaults
    are ours, for a few thousand images on a CPU.
    """

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
