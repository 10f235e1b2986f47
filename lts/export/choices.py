"""Poolings and formats of an export, which binaries check before TensorFlow is imported."""

import importlib.util
import re
from collections.abc import Iterable

from lts.utils.errors import FormatError, UserError

FORMATS = ("saved_model", "tflite", "tflite_float16", "onnx")


class PoolError(UserError):
    """An unknown pooling."""

    exit_status = 2


def check_pool(how: str) -> None:
    """Raise `PoolError` unless a pooling is known."""
    if not re.fullmatch(r"none|avg|max|grid:[1-9]\d*", how):
        raise PoolError(f"pool must be none, avg, max or grid:N, for example grid:3. Received: pool={how!r}")


def check_formats(formats: Iterable[str]) -> None:
    """Raise `FormatError` unless all formats are available."""
    for name in formats:
        if name not in FORMATS:
            raise FormatError(f"formats must be of {', '.join(FORMATS)}. Received: formats={name!r}")
    if "onnx" in formats:
        for package in ("onnx", "tf2onnx"):
            if importlib.util.find_spec(package) is None:
                raise FormatError(f"the format onnx needs the package {package}: pip install 'lts[onnx]'")
