"""A VOC task over models and seeds.

Every model is trained with every seed of the protocol, tested, drawn and compared.
"""

import dataclasses
import io
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments.probing import overlap
from experiments.probing.cache import ResultCache
from experiments.reporting.results import SEEN
from experiments.voc import metrics, transfer
from experiments.voc.data.tfds import SPLITS
from experiments.voc.transfer import TransferError, VocTask
from lts import training
from lts.export.saved_model import LoadedModel
from lts.utils import files, statistics
from lts.utils.text import printable
from lts.visualization import figures

TRAINING = "training"  # folder of the training runs, below the output
DRAWN = 6  # test images in the pictures

# Results of one model and seed, as results.json holds them; "resampled" is the headline of every bootstrap resample.
Record = Mapping[str, Any]


def run(
    task: VocTask,
    model: LoadedModel,
    baselines: Sequence[LoadedModel],
    output,
    options: training.MonitoringOptions = training.MonitoringOptions(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Train and test the model and the baselines with every seed.

    Args:
      task: task with its images.
      model: loaded SavedModel of a backbone.
      baselines: loaded SavedModels to compare with.
      output: folder. `training` holds one run per model and seed, which resumes; `partial.json` holds finished
        results; `pictures` holds the drawn test images of each model's first seed.
      options: intervals of monitoring and checkpoints.

    Returns:
      The content of `results.json`: "kind", "task", "measure", "protocol", "dataset", "may_have_seen_test_images",
      "classes", "seconds" and "models", the model first. Each of these has "path", "fingerprint", "description",
      "baseline", "value", "interval", "per_class" and "seeds" (the results of each seed). With baselines there are also
      "baseline_mean" and the model's "difference" to it. Values are fractions, None where a class cannot be measured.

    Raises:
      TransferError: no test image of any class, classes that differ, or images that both sets contain.
      ExportError: a model without a backbone.
      TrainingError: as for `training.run`.
    """
    check(task)
    runner = _Runner(task, pathlib.Path(output), options)
    models = [model, *baselines]
    descriptions = {str(candidate.path): candidate.description for candidate in models}
    seen = overlap.seen_by(descriptions, *_test_images(task.test.set))
    records = [runner.seeds_of(candidate, number) for number, candidate in enumerate(models)]
    protocol = task.protocol

    described = []
    for candidate, model_records in zip(models, records, strict=True):
        entry = _describe(candidate, model_records, protocol)
        entry["baseline"] = candidate is not model
        described.append(entry)
    results = {
        "kind": "voc",
        "task": task.name,
        "measure": task.measure,
        "protocol": dataclasses.asdict(protocol),
        "dataset": _describe_data(task.train.set, task.test.set),
        SEEN: seen,
        "classes": list(task.class_names),
        "models": described,
    }
    if baselines:
        every_baseline = [record for model_records in records[1:] for record in model_records]
        described[0]["difference"] = _mean(records[:1], protocol, minus=records[1:])
        results["baseline_mean"] = _mean(records[1:], protocol)
        results["baseline_mean"]["per_class"] = _per_class(every_baseline)
    seconds = [record["seconds"] for model_records in records for record in model_records]
    results["seconds"] = round(sum(seconds), 1)
    return results


def check(task: VocTask) -> None:
    """Raise `TransferError` unless both sets have the same classes and no common image."""
    train = task.train.set
    test = task.test.set
    if train.class_names != test.class_names:
        raise TransferError(
            f"training and test images must have the same classes. Received: {', '.join(train.class_names)} and "
            f"{', '.join(test.class_names)}"
        )
    shared = sorted(set(train.ids) & set(test.ids)) if train.name == test.name else []
    if shared:
        raise TransferError(
            f"training and test images must be different. Splits {train.split!r} and {test.split!r} of {train.name} "
            f"share {len(shared)} images, such as {shared[0]!r}"
        )


def _test_images(test) -> tuple[str, str]:
    """Return data set and split of the test images, as a pre-training names them."""
    if not test.name.startswith("folder:"):
        parts = []
        for part in test.split.split("+"):
            name, bracket, span = part.strip().partition("[")
            parts += [f"{split}{bracket}{span}" for split in SPLITS.get(name, (name,))]
        return test.name, "+".join(parts)
    return f"folder:{pathlib.Path(test.paths[0]).parent}", "all"


def workdir(output, model: LoadedModel, seed: int) -> pathlib.Path:
    """Return the folder of the training run of a model and a seed."""
    return pathlib.Path(output) / TRAINING / f"{model.fingerprint}_{seed}"


class _Runner:
    """Trains and tests one model and seed after the other, and keeps what is finished."""

    def __init__(self, task: VocTask, output: pathlib.Path, options: training.MonitoringOptions):
        self.task = task
        self.output = output
        self.options = options
        self.strategy = training.build_strategy()
        # Further seeds may be added to a finished run, so they are no part of what must stay the same.
        context = {
            "task": task.name,
            "protocol": {**dataclasses.asdict(task.protocol), "seeds": ()},
            "train": task.train.set.fingerprint,
            "test": task.test.set.fingerprint,
        }
        context.update(task.run_settings)
        self.cache = ResultCache(output, context)

    def seeds_of(self, model: LoadedModel, number: int) -> list[Record]:
        """Return the records of all seeds of a model; model number 0 is the one that is compared."""
        picture = f"baseline_{number}.png" if number else "model.png"
        path = self.output / "pictures" / picture
        return [self.record(model, seed, path) for seed in self.task.protocol.seeds]

    def record(self, model: LoadedModel, seed: int, picture: pathlib.Path) -> Record:
        """Return the record of one model and seed; train and test unless that is finished."""
        task = self.task
        key = f"seed {seed}"
        if self.cache.get(model, key) is None:
            start = time.monotonic()
            folder = workdir(self.output, model, seed)
            trained = transfer.fit(task, model, seed, folder, self.options, self.strategy)
            evaluation = task.evaluate(trained, f"{model.path}, seed {seed}")
            if seed == task.protocol.seeds[0]:
                indices = np.unique(np.linspace(0, task.test.set.num_examples - 1, DRAWN).astype(int))
                with figures.optional_picture(str(picture)):
                    _write_picture(picture, task.draw(trained, indices.tolist()))
            measured = _measured(task, evaluation, seed)
            measured["seconds"] = time.monotonic() - start
            self.cache.put(model, key, measured)
        record = self.cache.get(model, key)
        low, high = record["interval"]
        print(
            f"{printable(str(model.path))[-30:]:<30} seed {seed}  {task.measure} {100 * record['value']:5.1f} %"
            f"  [{100 * low:.1f}, {100 * high:.1f}]  {record['seconds']:.0f} s",
            flush=True,
        )
        return record


def _measured(task: VocTask, evaluation: transfer.Evaluation, seed: int) -> dict[str, Any]:
    """Return an evaluation with its bootstrap intervals."""
    test = task.test.set
    if math.isnan(evaluation.value):
        raise TransferError(f"{test.name}, split {test.split!r}: no class can be measured on it")
    protocol = task.protocol
    names = task.class_names
    resampled = statistics.bootstrap(
        evaluation.weighted, test.num_examples, resamples=protocol.resamples, seed=protocol.bootstrap_seed
    )  # [resamples, classes]
    means = metrics.class_mean(resampled)
    interval = clip01(statistics.percentile_interval(means, protocol.confidence, evaluation.value))
    class_intervals = clip01(statistics.percentile_interval(resampled, protocol.confidence, evaluation.per_class))
    per_class_interval = {}
    for name, ends in zip(names, class_intervals, strict=True):
        per_class_interval[name] = None if np.isnan(ends).any() else ends.tolist()
    return {
        "seed": seed,
        "value": evaluation.value,
        "per_class": _by_name(names, evaluation.per_class),
        "per_class_interval": per_class_interval,
        "interval": interval.tolist(),
        **evaluation.figures,
        "resampled": means.tolist(),
    }


def clip01(ends: np.ndarray) -> np.ndarray:
    """Clip interval ends of fractions to [0, 1]; on few images they would exceed it."""
    return np.clip(ends, 0.0, 1.0)


def _by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    """Return values by class name, None for nan."""
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}


def _per_class(records: Sequence[Record]) -> dict[str, float | None]:
    """Return the mean of each class over seeds or models."""
    rows = [list(record["per_class"].values()) for record in records]
    values = np.array(rows, np.float64)  # None becomes nan
    return _by_name(records[0]["per_class"], metrics.class_mean(values.T))


def _mean(models: Sequence[Sequence[Record]], protocol, minus: Sequence[Sequence[Record]] = ()) -> dict[str, Any]:
    """Return the mean over models, or its difference to other models, with an interval.

    Args:
      models: for each model the records of its seeds.
      protocol: gives the confidence.
      minus: the same of other models, whose mean is subtracted seed by seed, or resample by resample.

    Returns:
      "value" and "interval": Student's over several seeds, the bootstrap's over test images for one seed.
    """
    values = _over_models(models, "value")  # [seeds]
    if minus:
        values = values - _over_models(minus, "value")
    value = float(np.mean(values))
    if len(values) == 1:
        # All models were tested on the same resamples, so differences are paired.
        resampled = _over_models(models, "resampled")[0]
        if minus:
            resampled = resampled - _over_models(minus, "resampled")[0]
        interval = statistics.percentile_interval(resampled, protocol.confidence, value)
    else:
        interval = np.array(statistics.student_interval(values, protocol.confidence))
    if not minus:
        interval = clip01(interval)
    return {"value": value, "interval": interval.tolist()}


def _over_models(models: Sequence[Sequence[Record]], key: str) -> np.ndarray:
    """Return the mean of an entry over models, [seeds, ...]."""
    return np.mean([[record[key] for record in records] for records in models], axis=0)


def _describe(model: LoadedModel, records: Sequence[Record], protocol) -> dict[str, Any]:
    """Return a model and its results, as in results.json."""
    seeds = []
    for record in records:
        seeds.append({key: value for key, value in record.items() if key != "resampled"})
    return {
        "path": str(model.path),
        "fingerprint": model.fingerprint,
        "description": model.description,
        "seeds": seeds,
        **_mean([records], protocol),
        "per_class": _per_class(records),
    }


def _describe_data(train, test) -> dict[str, Any]:
    """Return both sets, as in results.json."""
    described = {"name": train.name, "test_name": test.name}
    for side, images in (("train", train), ("test", test)):
        described[f"{side}_split"] = images.split
        described[f"{side}_images"] = images.num_examples
        described[f"{side}_skipped"] = dict(images.broken)
        described[f"{side}_fingerprint"] = images.fingerprint
    return described


def _write_picture(path: pathlib.Path, picture: np.ndarray) -> None:
    """Write a PNG file."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="png")
    files.write_bytes(path, content.getvalue())
