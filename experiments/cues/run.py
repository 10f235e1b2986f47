"""The measurements of `experiments.shortcuts`.

Every figure is an AUROC of telling reconstructions from repaired images, the discriminator's task in training.
"""

import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.cues import filters, layers, occlusion
from experiments.cues.protocol import ShortcutsProtocol
from experiments.probing import overlap
from experiments.probing.cache import ResultCache
from experiments.probing.features import extract
from experiments.reporting.results import SEEN
from lts import data
from lts.spotting import evaluation
from lts.spotting.corruption import Corruption
from lts.spotting.metadata import describe_run, describe_source, versions
from lts.utils import statistics
from lts.utils.progress import Progress
from lts.utils.ranking import Ranking

EXAMPLES = 10  # images in the pictures
KINDS = ("reconstruction", "repaired")


@dataclasses.dataclass(frozen=True)
class Examples:
    """The first images, for the pictures; axis 0 is that of `KINDS`."""

    images: np.ndarray  # uint8 [2, M, size, size, 3]
    probability: np.ndarray  # float [2, M]
    occlusion: np.ndarray  # float [2, M, h, w]
    dropped: np.ndarray  # bool [M, h, w]
    artifact_map: np.ndarray  # float [M, h, w], of the repaired images


@dataclasses.dataclass(frozen=True)
class Shortcuts:
    """One model and the images of one run.

    Args:
      model: from `lts.export.saved_model.load`.
      corruption: of the run.
      source: images that the run was not trained on.
      protocol: of the measurements.
      images: uint8 [2, N, size, size, 3], the reconstructions and the repaired images.
      dropped: bool [N, h, w], the dropped cells of the repaired images.
    """

    model: Any
    corruption: Corruption
    source: data.ImageDataset
    protocol: ShortcutsProtocol
    images: np.ndarray
    dropped: np.ndarray

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.dropped)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return the probability that images [B, H, W, 3] were repaired."""
        batches = range(0, len(images), evaluation.BATCH_SIZE)
        outputs = [self.model.spot(images[first : first + evaluation.BATCH_SIZE]) for first in batches]
        return np.concatenate([output["probability"].numpy() for output in outputs])

    def auroc(self, untouched: np.ndarray, changed: np.ndarray) -> dict[str, Any]:
        """Return "auroc" and "interval" of scores [N] of both versions."""
        return evaluation.auroc_record(evaluation.pair_ranking(untouched, changed), self.bootstrap)

    @property
    def bootstrap(self) -> Callable:
        """The bootstrap of the protocol."""
        options = {"resamples": self.protocol.resamples, "seed": self.protocol.seed}
        return functools.partial(statistics.bootstrap, **options)

    def measure_score(self) -> dict[str, Any]:
        """Measure the score on all images, and on those on which the probes are tested."""
        with Progress("score", 2 * self.count) as progress:
            untouched, changed = (self.scores(images) for images in self.images)
            progress.advance(2 * self.count)
        *_, test = self.divide()
        return {"all": self.auroc(untouched, changed), "tested": self.auroc(untouched[test], changed[test])}

    def divide(self) -> tuple[np.ndarray, ...]:
        """Return the parts of the images for the probes of layers."""
        shares = (self.protocol.test_share, self.protocol.validation)
        return layers.divide(self.count, self.corruption.group_size, shares, self.protocol.seed)

    def measure_layers(self) -> dict[str, Any]:
        """Measure a linear probe of each layer alone."""
        names = self.model.layers
        flat = self.images.reshape(-1, *self.images.shape[2:])
        batches = (flat[first : first + evaluation.BATCH_SIZE] for first in range(0, len(flat), evaluation.BATCH_SIZE))
        # A map pooled to one cell: each score is a mean over positions, so that a layer's context is what a cell sees.
        options = {"dimensions": 1, "pool": self.protocol.pool, "title": "features of layers"}
        features = extract(self.model, batches, len(flat), names, **options)
        parts = self.divide()
        records = {}
        for name in names:
            (untouched, changed), chosen = layers.probe(features[name].reshape(2, self.count, -1), parts)
            seen = {"receptive_field": self.model.geometry[name].receptive_field}
            records[name] = {**self.auroc(untouched, changed), **seen, **chosen}
        return records

    def measure_filter(self, filter_: filters.Filter) -> dict[str, Any]:
        """Measure the score on filtered images."""
        untouched, changed = (self.scores(filter_(images)) for images in self.images)
        return {"kind": filter_.kind, "value": filter_.value, "label": filter_.label, **self.auroc(untouched, changed)}

    def measure_cells(self) -> list[dict[str, Any]]:
        """Measure the score by the number of dropped cells."""
        cells = self.dropped[0].size
        numbers = [2**power for power in range(cells.bit_length()) if 2**power < cells]
        numbers.append(cells)
        untouched = self.scores(self.images[0])
        changed: list[list[np.ndarray]] = [[] for _ in numbers]
        image = self.corruption.config.image
        with Progress("numbers of dropped cells", self.count) as progress:
            options = {"batch_size": evaluation.BATCH_SIZE, "limit": self.count}
            for views in data.test_batches(self.source, image, **options):
                _, uniform = self.corruption.draw(self.protocol.seed, progress.done, len(views))
                masks = self.corruption.exact_masks(uniform, numbers)
                for scores, mask in zip(changed, masks, strict=True):
                    scores.append(self.scores(self.corruption.repaired(views, mask, uniform)))
                progress.advance(len(views))
        records = []
        for number, batches in zip(numbers, changed, strict=True):
            scores = np.concatenate(batches)
            figures = {**self.auroc(untouched, scores), "paired": self.paired_share(untouched, scores)}
            records.append({"dropped": number, "cells": cells, **figures})
        return records

    def paired_share(self, untouched: np.ndarray, changed: np.ndarray) -> dict[str, Any]:
        """Return the share of images whose changed version has the higher score, with its interval; ties count half.

        Unlike the AUROC, it does not contain the spread of scores between images.
        """
        higher = np.where(changed == untouched, 0.5, changed > untouched)
        options = {"resamples": self.protocol.resamples, "seed": self.protocol.seed}
        interval = statistics.mean_interval(higher, confidence=self.protocol.confidence, **options)
        return {"share": float(higher.mean()), "interval": interval}

    def measure_occlusion(self) -> dict[str, Any]:
        """Measure occlusion maps, "maps" [2, M, h, w], and how well they find the dropped cells."""
        count = min(self.protocol.occlusion_images, self.count)
        grid = self.dropped.shape[1]
        side = max(1, round(self.protocol.occluder * self.images.shape[2]))
        maps = np.empty([2, count, grid, grid])
        with Progress("occlusion maps", 2 * count) as progress:
            for kind in range(2):
                for number in range(count):
                    maps[kind, number] = occlusion.occlusion_map(self.scores, self.images[kind, number], grid, side)
                    progress.advance(1)
        dropped = self.dropped[:count]
        # Without both kinds of cells there is nothing to find.
        found = None
        if dropped.any() and not dropped.all():
            numbers = np.broadcast_to(np.arange(count)[:, None, None], dropped.shape)
            found = evaluation.auroc_record(Ranking(maps[1], dropped, numbers), self.bootstrap)
        strength = np.abs(maps).mean(axis=1).round(4)  # [2, h, w]
        positions = dict(zip(KINDS, strength.tolist(), strict=True))
        return {"images": count, "side": side, "dropped_cells": found, "positions": positions, "maps": maps.tolist()}

    def examples(self, maps: np.ndarray) -> Examples:
        """Return what the pictures show, from the occlusion maps [2, M, h, w]."""
        count = min(EXAMPLES, maps.shape[1])
        outputs = [self.model.spot(images[:count]) for images in self.images]
        return Examples(
            images=self.images[:, :count],
            probability=np.stack([output["probability"].numpy() for output in outputs]),
            occlusion=maps[:, :count],
            dropped=self.dropped[:count],
            artifact_map=outputs[1]["artifact_map"].numpy(),
        )


def run(
    model, corruption: Corruption, source: data.ImageDataset, output: str | os.PathLike, protocol: ShortcutsProtocol
) -> tuple[dict[str, Any], Examples]:
    """Measure what the discriminator of an export looks at.

    A stopped run resumes from `partial.json` in `output`.

    Args:
      model: from `lts.export.saved_model.load`.
      corruption: of the run.
      source: images that the run was not trained on.
      output: folder of the results.
      protocol: of the measurements.

    Returns:
      The content of results.json, and what the pictures show.

    Raises:
      EvaluationError: the export has another image size or grid than the run, or the corruption needs more images.
      ProbeError: too few images.
    """
    began = time.monotonic()
    evaluation.check_size(model, corruption)
    seen = overlap.seen_by({str(model.path): model.description}, source.name, source.split)
    shortcuts = _corrupt(model, corruption, source, protocol)
    shortcuts.divide()  # refuses too few images before the work
    context = {
        "protocol": dataclasses.asdict(protocol),
        "images": source.fingerprint,
        "corrupted": hashlib.sha256(shortcuts.images.tobytes()).hexdigest(),
    }
    cached = functools.partial(_cached, ResultCache(output, context), model)
    score = cached("score", shortcuts.measure_score)
    layer_records = cached("layers", shortcuts.measure_layers)
    chosen = filters.chosen(protocol)
    filter_records = []
    with Progress("filters", len(chosen), "filters") as progress:
        for filter_ in chosen:
            measure = functools.partial(shortcuts.measure_filter, filter_)
            filter_records.append(cached(filter_.label, measure))
            progress.advance(1)
    cells = cached("cells", shortcuts.measure_cells)
    occlusion_record = dict(cached("occlusion", shortcuts.measure_occlusion))
    examples = shortcuts.examples(np.array(occlusion_record.pop("maps")))
    damage = corruption.config.damage
    results = {
        "kind": "shortcuts",
        "protocol": {
            **dataclasses.asdict(protocol),
            "corruption": damage.corruption,
            "keep_probability": damage.keep_probability,
        },
        "model": {"path": str(model.path), "fingerprint": model.fingerprint, "description": model.description},
        "run": describe_run(corruption, model, source),
        "images": {**describe_source(source), "number": shortcuts.count},
        SEEN: seen,
        "score": score,
        "layers": layer_records,
        "filters": filter_records,
        "cells": cells,
        "occlusion": occlusion_record,
        "versions": versions(),
        "seconds": round(time.monotonic() - began, 1),
    }
    return results, examples


def _corrupt(model, corruption: Corruption, source: data.ImageDataset, protocol: ShortcutsProtocol) -> Shortcuts:
    """Return the images in both versions."""
    count = evaluation.count_images(corruption, min(source.num_examples, protocol.max_images))
    images: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    dropped = []
    with Progress("corrupting", count) as progress:
        for batch in evaluation.corrupted_batches(corruption, source, count, protocol.seed):
            for kind in KINDS:
                images[kind].append(batch.images[kind].numpy())
            dropped.append(batch.keep_mask[..., 0] < 0.5)
            progress.advance(len(batch.keep_mask))
    pairs = np.stack([np.concatenate(images[kind]) for kind in KINDS])
    first_map = model.spot(pairs[1, :1])["artifact_map"].numpy()
    evaluation.check_cells(model, corruption, first_map, dropped[0][:1])
    return Shortcuts(model, corruption, source, protocol, pairs, np.concatenate(dropped))


def _cached(cache: ResultCache, model, name: str, measure: Callable[[], Any]) -> Any:
    """Return a measurement of an earlier, stopped run, or measure."""
    record = cache.get(model, name)
    if record is None:
        record = measure()
        cache.put(model, name, record)
    return record
