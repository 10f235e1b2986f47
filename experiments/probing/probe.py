"""Contract of a probe.

A new probe is one subclass of `Probe`, or of `experiments.probing.features.FeatureProbe`, and one program.
"""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from experiments.probing.protocols import LAST_LAYER
from lts.utils.errors import UserError


class ProbeError(UserError):
    """Evaluation that cannot be done."""


@dataclasses.dataclass(frozen=True)
class LayerResult:
    """Result of one layer."""

    layer: str  # its name, a column of the tables
    record: Mapping[str, Any]  # as `experiments.probing.statistics` builds it, or several such records by name
    seconds: float  # time it took


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe(abc.ABC):
    """Evaluation of single models."""

    kind: ClassVar[str]  # which evaluation this is, written to results.json
    least_images: ClassVar[int] = 2  # of every class for training: some are held out to tune hyper-parameters
    protocol: Any  # a dataclass of `experiments.probing.protocols`
    train: Any  # labelled training images
    test: Any  # labelled test images of the same classes
    output: Any  # folder of the evaluation
    batch_size: int = 100  # test images in one forward pass; changes only the speed

    @abc.abstractmethod
    def run(self, model, layers: Sequence[str]) -> Iterator[LayerResult]:
        """Evaluate one model.

        Args:
          model: a loaded SavedModel.
          layers: those that an earlier, stopped run did not finish.

        Yields:
          A `LayerResult` for each layer. Each is kept, and not computed again after a stop.
        """

    def choose_layers(self, models: Sequence, requested: Sequence[str]) -> list[str]:
        """Return the layers to evaluate.

        Args:
          models: loaded SavedModels, the first one decides.
          requested: names of layers; empty: those of the protocol, or all.

        Raises:
          ProbeError: a model cannot be evaluated, for example because it lacks a layer.
        """
        chosen = requested or getattr(self.protocol, "layers", ()) or models[0].layers
        layers = [models[0].layers[-1] if name == LAST_LAYER else name for name in dict.fromkeys(chosen)]
        for model in models:
            for layer in layers:
                if layer not in model.layers:
                    known = ", ".join(model.layers)
                    raise ProbeError(f"layers of {model.path} are {known}. Received: {layer!r}. Change --layers.")
        return layers

    def describe(self, model) -> Mapping[str, Any]:
        """Return the description of a model for results.json."""
        return model.description


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """Results of one model."""

    path: str  # folder of the SavedModel
    fingerprint: str  # digest of its weights
    description: Mapping[str, Any]  # contents of its config.json
    records: Mapping[str, Mapping[str, Any]]  # by layer, with "correct", from which paired differences are computed
    seconds: float  # time of all layers

    def to_json(self) -> dict[str, Any]:
        """Return the entry in results.json, without "correct"."""
        layers = {}
        for layer, record in self.records.items():
            layers[layer] = {name: value for name, value in record.items() if name != "correct"}
        entry = {"path": self.path, "fingerprint": self.fingerprint, "description": self.description}
        return {**entry, "layers": layers}
