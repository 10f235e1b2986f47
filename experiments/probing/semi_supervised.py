"""Labels in pre-training against fine-tuning with the same labels (this project)."""

import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.probing import statistics
from experiments.probing.finetuning import FinetuneProbe
from experiments.probing.probe import LayerResult, Probe, ProbeError
from lts import data
from lts.config import ImageConfig
from lts.export.saved_model import LoadedModel


@dataclasses.dataclass(frozen=True)
class LabelledExports:
    """Exports of runs with `--labels_weight`, which make up one row of the table."""

    exports: Mapping[str, LoadedModel]  # by share of the labels, "5 %"

    @property
    def path(self) -> str:
        """Folders of the exports."""
        return ", ".join(str(export.path) for export in self.exports.values())

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the weights of all exports."""
        digits = "".join(export.fingerprint for export in self.exports.values())
        return hashlib.sha256(digits.encode()).hexdigest()[:16]

    @property
    def description(self) -> Mapping[str, Any]:
        """Description of the first export; the others differ in their share of the labels."""
        return next(iter(self.exports.values())).description


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemiSupervisedProbe(Probe):
    """The classes that exports were trained to tell, and fine-tuned baselines with the same labels.

    Its protocol is the `FinetuneProtocol` of the baselines. The shares of the labels take the place of layers.
    """

    kind = "semi_supervised"
    shares: Mapping[str, Any]  # share, "5 %", to its labelled training images

    def choose_layers(self, models: Sequence[Any], requested: Sequence[str]) -> list[str]:
        """Check the models, and return the shares.

        Raises:
          ProbeError: an export has no classes, or was trained with other labels.
        """
        labelled, *baselines = models
        for share, export in labelled.exports.items():
            if export.description.get("classes") != list(self.test.class_names):
                raise ProbeError(
                    f"{export.path} was not trained with labels of these classes. Received: --model={export.path}. "
                    "Give exports of runs with --labels_weight."
                )
            images = export.description["labelled_images"]
            if images != self.shares[share].num_examples:
                raise ProbeError(
                    f"{export.path} was trained with {images} labels, not with those of the training images. Received: "
                    f"split={self.train.split}, {share} of the labels: {self.shares[share].num_examples} images."
                )
            # Another data set, or other images of this one, may have as many labels of the same classes.
            source = self.shares[share]
            digest = data.labels_digest(source.labels, source.names)
            if export.description.get("labels_digest", digest) != digest:  # older exports have none
                raise ProbeError(
                    f"{export.path} was trained with the labels of other images. Received: dataset={source.name}, "
                    f"split={self.train.split}. Give the data set and the split of its labels."
                )
        for share in labelled.exports:
            if baselines:
                self._finetuning(share).choose_layers(baselines, [])
        return list(labelled.exports)

    def run(self, model: Any, layers: Sequence[str]) -> Iterator[LayerResult]:
        """Test an export, or fine-tune a baseline, for every share."""
        for share in layers:
            if not isinstance(model, LabelledExports):
                yield from self._finetuning(share).run(model, [share])
                continue
            began = time.monotonic()
            correct = self._test(model.exports[share])
            yield LayerResult(share, statistics.accuracy_record(correct, self.protocol), time.monotonic() - began)

    def _finetuning(self, share: str) -> FinetuneProbe:
        """Return the fine-tuning with a share of the labels."""
        folder = pathlib.Path(self.output) / share.replace(" %", "_percent")
        return FinetuneProbe(protocol=self.protocol, train=self.shares[share], test=self.test, output=folder)

    def _test(self, export: LoadedModel) -> np.ndarray:
        """Return whether an export tells the class of each test image, bool [test images]."""
        image = ImageConfig(image_size=export.image_size, test_crop=export.test_crop)
        batches = data.test_batches(self.test, image, batch_size=self.batch_size)
        predictions = [tf.argmax(export.classify(images), 1).numpy() for images in batches]
        return np.concatenate(predictions) == self.test.labels
