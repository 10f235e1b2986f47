"""A VOC task over models and seeds: trains, tests, draws, and compares."""

import dataclasses
import io
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments.probing.run import PARTIAL, Partial
from experiments.voc import metrics, transfer
from experiments.voc.transfer import TransferError, VocTask
from lts import training
from lts.export.saved_model import LoadedModel
from lts.utils import files, statistics

TRAINING = "training"  # folder of the runs, below the output
DRAWN = 6  # test images in the pictures


def run(
    task: VocTask,
    model: LoadedModel,
    baselines: Sequence[LoadedModel],
    output,
    options: training.MonitoringOptions = training.MonitoringOptions(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Trains the model and each baseline with every seed of the protocol, all in the same way, and tests them.

    Args:
      task: what is trained and tested.
      model: a loaded SavedModel of a backbone.
      baselines: loaded SavedModels to put beside it.
      output: folder. Runs lie in `training` below it, one for each model and seed, and go on where they were stopped;
        `partial.json` holds what is done; `pictures` the drawn test images of each model's first seed.
      options: intervals of monitoring and checkpoints.

    Returns:
      What `results.json` holds: "task", "measure", "protocol", "dataset", "classes", "seconds"; "models", the model
      first, each with "path", "fingerprint", "description", "baseline", "value", "interval", "per_class" and "seeds"
      (the same of each, and more); with baselines also "baseline_mean" and the model's "difference" to it. Values are
      fractions, None where a class cannot be measured.

    Raises:
      TransferError: no test image of any class, classes that differ, or images that both sets hold.
      ExportError: a model without a backbone.
      TrainingError: as `training.run` raises it.
    """
    check(task)
    models = [model, *baselines]
    protocol = dataclasses.asdict(task.protocol)
    sets = {side: getattr(task, side).set for side in ("train", "test")}
    context = {"task": task.name, "protocol": {**protocol, "seeds": ()}, **task.beside}
    context |= {side: opened.fingerprint for side, opened in sets.items()}
    partial = Partial(pathlib.Path(output) / PARTIAL, context)
    strategy = training.build_strategy()
    found = []
    for number, candidate in enumerate(models):
        picture = pathlib.Path(output) / "pictures" / (f"baseline_{number}.png" if number else "model.png")
        found.append(
            [
                _record(task, candidate, seed, output, options, strategy, partial, picture)
                for seed in task.protocol.seeds
            ]
        )
    described = [
        _describe(candidate, records, number > 0, task.protocol)
        for number, (candidate, records) in enumerate(zip(models, found, strict=True))
    ]
    described[0] |= _difference(found, task.protocol)
    return {
        "kind": "voc",
        "task": task.name,
        "measure": task.measure,
        "protocol": protocol,
        "dataset": _describe_data(sets),
        "classes": list(task.class_names),
        "models": described,
        **_baseline_mean(found, task.protocol),
        "seconds": round(sum(record["seconds"] for records in found for record in records), 1),
    }


def check(task: VocTask) -> None:
    """Raises `TransferError` unless both sets have the same classes, and no image in common."""
    train, test = task.train.set, task.test.set
    if train.class_names != test.class_names:
        raise TransferError(
            f"training and test images should have the same classes. Received: {', '.join(train.class_names)} and "
            f"{', '.join(test.class_names)}"
        )
    shared = sorted(set(train.ids) & set(test.ids)) if train.name == test.name else []
    if shared:
        raise TransferError(
            f"training and test images should be different ones, but splits {train.split!r} and {test.split!r} of "
            f"{train.name} share {len(shared)}, as {shared[0]!r}"
        )


def workdir(output, model: LoadedModel, seed: int) -> pathlib.Path:
    """Folder of the training run of a model and a seed."""
    return pathlib.Path(output) / TRAINING / f"{model.fingerprint}_{seed}"


def _record(
    task: VocTask, model: LoadedModel, seed: int, output, options, strategy, partial: Partial, picture: pathlib.Path
) -> dict[str, Any]:
    """One model and seed: what is kept of it, with "resampled", the headline on each resample of the test images."""
    key = f"seed {seed}"
    if partial.get(model, key) is None:
        began, title = time.monotonic(), f"{model.path}, seed {seed}"
        trained = transfer.fit(task, model, seed, workdir(output, model, seed), options, strategy)
        evaluation = task.evaluate(trained, title)
        if seed == task.protocol.seeds[0]:
            numbers = np.unique(np.linspace(0, task.test.set.num_examples - 1, DRAWN).astype(int))
            _write_picture(picture, task.draw(trained, numbers.tolist()))
        partial.put(model, {key: {**_measured(task, evaluation, seed), "seconds": time.monotonic() - began}})
    record = partial.get(model, key)
    low, high = (100 * end for end in record["interval"])
    print(
        f"{str(model.path)[-40:]:<40} seed {seed}  {task.measure} {100 * record['value']:5.1f} %"
        f"  [{low:5.1f}, {high:5.1f}]  {record['seconds']:7.1f} s",
        flush=True,
    )
    return record


def _measured(task: VocTask, evaluation: transfer.Evaluation, seed: int) -> dict[str, Any]:
    """An evaluation with its bootstrap, as JSON."""
    if math.isnan(evaluation.value):
        raise TransferError(f"{task.test.set.name}, split {task.test.set.split!r}: no class can be measured on it")
    protocol, names = task.protocol, task.class_names
    resampled = statistics.bootstrap(
        evaluation.weighted, task.test.set.num_examples, resamples=protocol.resamples, seed=protocol.bootstrap_seed
    )
    means = metrics.class_mean(resampled)
    ends = clip01(statistics.percentile_interval(resampled, protocol.confidence, evaluation.per_class))  # [classes, 2]
    return {
        "seed": seed,
        "value": evaluation.value,
        "per_class": _by_name(names, evaluation.per_class),
        "per_class_interval": {
            name: None if np.isnan(pair).any() else pair.tolist() for name, pair in zip(names, ends, strict=True)
        },
        "interval": clip01(statistics.percentile_interval(means, protocol.confidence, evaluation.value)).tolist(),
        **evaluation.figures,
        "resampled": means.tolist(),
    }


def clip01(ends: np.ndarray) -> np.ndarray:
    """Ends of intervals of shares, cut to [0, 1]: on few images they would lie outside of it."""
    return np.clip(ends, 0.0, 1.0)


def _by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}


def _per_class(records: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean over seeds, or models, of each class."""
    rows = np.array([list(record["per_class"].values()) for record in records], np.float64)  # None becomes nan
    return _by_name(records[0]["per_class"], metrics.class_mean(rows.T))


def _mean(columns: Sequence[Sequence[Mapping[str, Any]]], protocol, minus: Sequence | None = None) -> dict[str, Any]:
    """Mean over models of their records, less those of another list, with an interval over seeds or test images.

    Args:
      columns: of each model the records of its seeds.
      protocol: gives seeds and confidence.
      minus: the same of other models, whose mean is taken off, seed by seed or resample by resample.

    Returns:
      "value" and "interval": Student's over several seeds, the bootstrap's over the test images of one.
    """
    single = len(columns[0]) == 1

    def averaged(models, key: str):
        return np.mean([[record[key] for record in records] for records in models], axis=0)  # [seeds, ...]

    keys = ["value", *(["resampled"] if single else [])]
    means = {key: averaged(columns, key) - (averaged(minus, key) if minus else 0.0) for key in keys}
    value = float(np.mean(means["value"]))
    if single:
        interval = statistics.percentile_interval(means["resampled"][0], protocol.confidence, value)
    else:
        interval = np.array(statistics.student_interval(means["value"], protocol.confidence))
    return {"value": value, "interval": (interval if minus else clip01(interval)).tolist()}


def _difference(found: Sequence[Sequence[Mapping[str, Any]]], protocol) -> dict[str, Any]:
    """The first model's difference to the mean of the others; empty without others."""
    return {"difference": _mean(found[:1], protocol, found[1:])} if len(found) > 1 else {}


def _baseline_mean(found: Sequence[Sequence[Mapping[str, Any]]], protocol) -> dict[str, Any]:
    """The others' mean; empty without others."""
    if len(found) == 1:
        return {}
    records = [record for records in found[1:] for record in records]
    return {"baseline_mean": {**_mean(found[1:], protocol), "per_class": _per_class(records)}}


def _describe(model: LoadedModel, records: Sequence[Mapping[str, Any]], baseline: bool, protocol) -> dict[str, Any]:
    """A model and its results, as in results.json."""
    return {
        "path": str(model.path),
        "fingerprint": model.fingerprint,
        "description": model.description,
        "baseline": baseline,
        "seeds": [{key: value for key, value in record.items() if key != "resampled"} for record in records],
        **_mean([records], protocol),
        "per_class": _per_class(records),
    }


def _describe_data(sets: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": sets["train"].name,
        "test_name": sets["test"].name,
        **{f"{side}_split": opened.split for side, opened in sets.items()},
        **{f"{side}_images": opened.num_examples for side, opened in sets.items()},
        **{f"{side}_skipped": dict(opened.broken) for side, opened in sets.items()},
        **{f"{side}_fingerprint": opened.fingerprint for side, opened in sets.items()},
    }


def _write_picture(path: pathlib.Path, picture: np.ndarray) -> None:
    """A PNG file."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="png")
    files.write_bytes(path, content.getvalue())
