"""Protocol of `experiments.shortcuts`."""

import dataclasses

from experiments.probing.protocols import POOLS
from lts.config.fields import CheckedFields, field


@dataclasses.dataclass(frozen=True)
class ShortcutsProtocol(CheckedFields):
    """Every value that decides a result besides the model, the run and the images."""

    max_images: int = field(500, "images to use, from the beginning of the split", minimum=1)
    pool: str = field("average", "pooling of feature maps to one vector, for the probes of layers", choices=POOLS)
    test_share: float = field(0.5, "share of the images on which the probes of layers are tested", above=0, below=1)
    validation: float = field(
        0.2, "share of the other images on which their regularisation is chosen", above=0, below=1
    )
    sigmas: tuple[float, ...] = field(
        (0.5, 1.0, 2.0, 4.0),
        "standard deviations of Gaussian low-pass filters in pixels",
        above=0,
        maximum=1000,
        min_length=1,
        distinct=True,
    )
    qualities: tuple[int, ...] = field(
        (10, 25, 50, 75, 95), "qualities of JPEG compression", minimum=1, maximum=100, min_length=1, distinct=True
    )
    factors: tuple[int, ...] = field(
        (2, 4), "factors by which images are reduced and enlarged again", minimum=2, min_length=1, distinct=True
    )
    occlusion_images: int = field(32, "images over which a grey square slides", minimum=1)
    occluder: float = field(0.25, "side of the square as a fraction of the image's side", above=0, maximum=1)
    resamples: int = field(1000, "resamples of the bootstrap", minimum=10)
    confidence: float = field(0.95, "level of the intervals", above=0, below=1)
    seed: int = field(1, "seed of keep masks, parts and bootstrap", minimum=0)
    name: str = "shortcuts"
