"""Filters that remove details from images: low-pass, JPEG, resampling.

A score that rests on high frequencies, such as noise of a decoder, falls to chance under these filters.
"""

import dataclasses
import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

from experiments.cues.protocol import ShortcutsProtocol


@dataclasses.dataclass(frozen=True)
class Filter:
    """One filter."""

    kind: str  # a key of `KINDS`
    value: float  # sigma, quality or factor

    @property
    def label(self) -> str:
        """Name with the value, for tables."""
        return KINDS[self.kind].label.format(f"{self.value:g}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return filtered images, uint8 [B, H, W, 3] as the given ones."""
        return KINDS[self.kind].apply(images, self.value)


def low_pass(images: np.ndarray, sigma: float) -> np.ndarray:
    """Return images under a Gaussian filter of `sigma` pixels; edges are mirrored."""
    smooth = ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="reflect")
    return smooth.round().astype(np.uint8)


def jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Return images after JPEG compression, with Pillow's subsampling of colours."""
    return np.stack([_compress(image, quality) for image in images])


def resample(images: np.ndarray, factor: int) -> np.ndarray:
    """Return images reduced by a factor and enlarged again, both bicubic."""
    return np.stack([_shrink_and_enlarge(image, factor) for image in images])


def chosen(protocol: ShortcutsProtocol) -> list[Filter]:
    """Return the filters of a protocol, the mildest of each kind first."""
    filters = [Filter("low-pass", sigma) for sigma in protocol.sigmas]
    filters += [Filter("jpeg", quality) for quality in reversed(protocol.qualities)]
    return filters + [Filter("resampling", factor) for factor in protocol.factors]


def _compress(image: np.ndarray, quality: int) -> np.ndarray:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="jpeg", quality=int(quality))
    return np.asarray(Image.open(encoded))


def _shrink_and_enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    height, width = image.shape[:2]
    smaller = (max(1, width // factor), max(1, height // factor))
    picture = Image.fromarray(image).resize(smaller, Image.Resampling.BICUBIC)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of filter."""

    label: str  # with a place for the value
    apply: Callable[[np.ndarray, float], np.ndarray]


KINDS = {
    "low-pass": Kind("low-pass, sigma {} pixels", low_pass),
    "jpeg": Kind("JPEG, quality {}", jpeg),
    "resampling": Kind("reduced and enlarged by {}", resample),
}
