"""Image sources, the release's augmentation, and batches for training and testing."""

from lts.data.pipeline import as_bytes, test_batches, training_batches
from lts.data.sources import Source, open_source
from lts.data.store import DataError

__all__ = ["DataError", "Source", "as_bytes", "open_source", "test_batches", "training_batches"]
