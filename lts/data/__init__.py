"""Image sources, the release's augmentation, and batches for training and testing."""

from lts.data.pipeline import as_bytes, in_order, shuffled_examples, test_batches, training_batches
from lts.data.sources import Source, open_source
from lts.data.store import DataError

__all__ = [
    "DataError",
    "Source",
    "as_bytes",
    "in_order",
    "open_source",
    "shuffled_examples",
    "test_batches",
    "training_batches",
]
