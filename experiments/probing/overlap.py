"""Test images that a model may have seen in pre-training."""

from collections.abc import Mapping
from typing import Any

from lts.data.splits import may_overlap
from lts.utils.text import warn


def seen_by(models: Mapping[str, Mapping[str, Any]], dataset: str, split: str) -> list[str]:
    """Return the models that may have been pre-trained on test images, and print a warning.

    Names of data sets and real paths of folders are compared, see `may_overlap`.

    Args:
      models: folder of a model to its description, the content of its config.json.
      dataset: of the test images.
      split: of the test images.
    """
    seen = []
    for path, description in models.items():
        # A model with random weights, or one that was imported, has no images of training.
        if description.get("weights") == "random" or "dataset" not in description:
            continue
        if may_overlap(description["dataset"], description["split"], dataset, split):
            seen.append(path)
    if seen:
        first = models[seen[0]]
        warn(
            f"{', '.join(seen)} may have seen test images in training, without or with their labels. Received: "
            f"training on {first['dataset']}, split {first['split']}, test on {dataset}, split {split}"
        )
    return seen
