"""Image datasets, the release's augmentation, and batches."""

from lts.data.labels import labels_digest, share_of_labels
from lts.data.pipeline import (
    as_bytes,
    as_signed,
    augmented_batches,
    in_order,
    shuffled_examples,
    test_batches,
    training_batches,
)
from lts.data.sources import ImageDataset, open_source
from lts.data.store import DataError

__all__ = [
    "DataError",
    "ImageDataset",
    "as_bytes",
    "as_signed",
    "augmented_batches",
    "in_order",
    "labels_digest",
    "open_source",
    "share_of_labels",
    "shuffled_examples",
    "test_batches",
    "training_batches",
]
