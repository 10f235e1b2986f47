"""Small image folders for the tests of the data room."""

import numpy as np
import pytest
from PIL import Image

from lts.config import ImageConfig

# The augmentation changes nothing.
NEUTRAL = ImageConfig(
    image_size=32,
    crop_area=(1.0, 1.0),
    crop_aspect=(1.0, 1.0),
    bicubic_probability=0.0,
    flip=False,
    brightness=0.0,
    saturation=(1.0, 1.0),
    test_crop=1.0,
)


def picture(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    """Return a smooth picture with noise, uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 5 + seed), np.cos(y / 4 - seed), np.sin((x + y) / 7)], axis=-1)
    noise = np.random.RandomState(seed).uniform(-20, 20, waves.shape)
    return np.clip(128 + 90 * waves + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def save(tmp_path):
    """Write pictures below tmp_path, such as `train/cat/1.png`."""

    def write(name: str, seed: int = 0, mode: str = "RGB", **options) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed=seed)).convert(mode).save(path, **options)
        return str(path)

    return write


@pytest.fixture
def tree(tmp_path, save):
    """Root of ROOT/split/class/image, with images without a class in `unlabelled`."""
    for split, classes, count in (("train", "ab", 4), ("test", "bc", 2)):
        for name in classes:
            for index in range(count):
                save(f"{split}/{name}/{index}.png", seed=index)
    for index in range(5):
        save(f"unlabelled/{index}.png", seed=50 + index)
    return str(tmp_path)
