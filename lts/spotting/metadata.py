"""What results say of the model, the images and the programs that they come from."""

import os
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts import __version__, data
from lts.utils import provenance


def describe_model(model) -> dict[str, Any]:
    """An export in a few words; its configuration lies in its own config.json."""
    known = {name: value for name, value in model.description.items() if name != "config"}
    return {"path": str(model.path), "fingerprint": model.fingerprint, **known}


def describe_source(source: data.ImageDataset) -> dict[str, Any]:
    """Where images come from and which were left out."""
    return {
        "dataset": source.name,
        "split": source.split,
        "number": source.num_examples,
        "fingerprint": source.fingerprint,
        "broken": [shown(name) for name in source.broken],
    }


def versions() -> dict[str, str | None]:
    """Of what computes the results."""
    libraries = {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}
    return {"lts": __version__, "commit": provenance.commit(), **libraries}


def image_name(source: data.ImageDataset, index: int) -> str:
    """Name of an image; its number where the source has no names."""
    return shown(source.names[index]) if source.names else f"{index:06}"


def shown(name: str) -> str:
    """A file's name as text that can be written: bytes that are no text become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def may_overlap(dataset: str, split: str, other_dataset: str, other_split: str) -> bool:
    """Whether two selections may share images, as far as their names tell.

    Two different slices of one split are taken for disjoint.

    Example:
      >>> may_overlap("tfds:stl10", "unlabelled+train", "tfds:stl10", "test")
      False
    """
    if _place(dataset) != _place(other_dataset):
        return False
    parts, others = ({part.strip() for part in re.split(r"\+", text)} for text in (split, other_split))
    for part in parts:
        for other in others:
            names = {part.split("[")[0], other.split("[")[0]}
            slices = "[" in part and "[" in other and part != other
            if (len(names) == 1 or "all" in names) and not slices:
                return True
    return False


def _place(dataset: str) -> str:
    """A dataset's name, folders by their real path."""
    kind, _, folder = dataset.partition(":")
    return f"folder:{os.path.realpath(folder)}" if kind == "folder" else dataset
