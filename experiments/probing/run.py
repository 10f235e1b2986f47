"""Evaluation of a model and its baselines by one probe."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.probing import overlap, statistics
from experiments.probing.cache import ResultCache, clear_cache
from experiments.probing.probe import LayerResult, ModelResult, Probe, ProbeError
from experiments.reporting import probe as probe_report
from experiments.reporting.results import SEEN
from lts.utils.streams import print_result
from lts.utils.text import printable


def run(probe: Probe, model, baselines: Sequence, layers: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate a model and its baselines.

    Prints a line for each layer. A stopped run resumes from `partial.json` in the probe's output folder.

    Args:
      probe: the evaluation.
      model: a loaded SavedModel.
      baselines: loaded SavedModels to compare it with.
      layers: names of layers; empty: those of the protocol, or all that the model has.

    Returns:
      Contents of `results.json`: "kind"; "protocol"; "dataset" (splits, counts, classes); the folders of models that
      "may_have_seen_test_images"; "layers"; "model" and each of "baselines" (path, fingerprint, description, and the
      record by layer); with baselines also "baseline_mean" and the paired "difference" by layer; "seconds". Accuracies
      are fractions.

    Raises:
      ProbeError: labels are missing or do not match, or a model lacks a layer.
    """
    check_labels(probe.train, probe.test, probe.least_images)
    models = [model, *baselines]
    layers = probe.choose_layers(models, layers)
    descriptions = {str(candidate.path): probe.describe(candidate) for candidate in models}
    seen = overlap.seen_by(descriptions, probe.test.name, probe.test.split)
    cache = _open_cache(probe)
    model_results = [_evaluate(probe, candidate, layers, cache) for candidate in models]
    results = {
        "kind": probe.kind,
        "protocol": dataclasses.asdict(probe.protocol),
        "dataset": describe_data(probe.train, probe.test),
        SEEN: seen,
        "layers": layers,
        "model": model_results[0].to_json(),
        "baselines": [result.to_json() for result in model_results[1:]],
    }
    if baselines:
        records = [result.records for result in model_results]
        comparison = statistics.compare(records[0], records[1:], probe.protocol)
        results["baseline_mean"] = comparison.mean
        results["difference"] = comparison.difference
    results["seconds"] = round(sum(result.seconds for result in model_results), 1)
    return results


def run_each(probe: Probe, models: Iterable) -> list[ModelResult]:
    """Evaluate every model at all of its layers.

    `partial.json` stays in the output folder, so that a later call with more models evaluates only the new ones.

    Args:
      probe: the evaluation.
      models: loaded SavedModels. A generator keeps only one of them in memory.

    Raises:
      ProbeError: labels are missing or do not match.
    """
    check_labels(probe.train, probe.test, probe.least_images)
    cache = _open_cache(probe)
    return [_evaluate(probe, model, model.layers, cache) for model in models]


def finish(results: Mapping[str, Any], output) -> None:
    """Remove the cache of a complete run and print its summary."""
    clear_cache(output)
    print_result(f"\n{summary(results)}\n{results['seconds']:.0f} s. Table, plot and JSON: results.* in {output}")


def summary(results: Mapping[str, Any]) -> str:
    """Return the accuracies as text of 80 columns."""
    columns = [("accuracy, %", results["model"]["layers"], "")]
    if results["baselines"]:
        columns.append((f"mean of {len(results['baselines'])} baseline(s)", results["baseline_mean"], ""))
        columns.append(("difference", results["difference"], "+"))
    headings = "".join(f"{heading:<21}" for heading, _, _ in columns)
    lines = [probe_report.title(results), " " * 16 + headings.rstrip()]
    for layer in results["layers"]:
        for name in _named_records(layer, results["model"]["layers"][layer]):
            line = f"{name:<16}"
            for _, records, sign in columns:
                line += f"{_percent(_named_records(layer, records[layer])[name], sign):<21}"
            lines.append(line.rstrip())
    confidence = f"{100 * results['protocol']['confidence']:g} %"
    lines.append(f"In brackets: {confidence} intervals, paired for the difference; see results.md.")
    return "\n".join(lines)


def _percent(record: Mapping[str, Any], sign: str = "") -> str:
    """Return an accuracy with its interval, in percent."""
    low, high = record["interval"]
    return f"{100 * record['accuracy']:{sign}5.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def _named_records(layer: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the records of a layer by the name of their line."""
    if "accuracy" in record:
        return {layer: record}
    return {f"{layer} {name}": part for name, part in record.items()}


def _open_cache(probe: Probe) -> ResultCache:
    """Open the cache of the probe's output folder."""
    context = {
        "protocol": dataclasses.asdict(probe.protocol),
        "train": probe.train.fingerprint,
        "test": probe.test.fingerprint,
    }
    return ResultCache(probe.output, context)


def _evaluate(probe: Probe, model, layers: Sequence[str], cache: ResultCache) -> ModelResult:
    """Evaluate the layers that are not in the cache."""
    # A stopped run resumes here: results of finished layers are printed again, not computed again.
    print(f"\n{printable(str(model.path))}\n  {'layer':<16} accuracy   interval          chosen    seconds", flush=True)
    finished: dict[str, LayerResult] = {}
    for layer in layers:
        cached = cache.get(model, layer)
        if cached is not None:
            finished[layer] = LayerResult(**cached)
            _print_result(finished[layer])
    missing = [layer for layer in layers if layer not in finished]
    if missing:
        # Each result is kept as soon as it is there: the next one can take an hour.
        for result in probe.run(model, missing):
            cache.put(model, result.layer, dataclasses.asdict(result))
            finished[result.layer] = result
            _print_result(result)
    return ModelResult(
        path=str(model.path),
        fingerprint=model.fingerprint,
        description=probe.describe(model),
        records={layer: finished[layer].record for layer in layers},
        seconds=sum(result.seconds for result in finished.values()),
    )


def _print_result(result: LayerResult) -> None:
    """Print a line per record."""
    for name, record in _named_records(result.layer, result.record).items():
        low, high = record["interval"]
        accuracy = f"{100 * record['accuracy']:5.1f} %   [{100 * low:5.1f}, {100 * high:5.1f}]"
        # What the probe tuned on held-out training images.
        chosen = ""
        if "neighbours" in record:
            chosen = f"k = {record['neighbours']}"
        elif "regularisation" in record:
            chosen = f"{record['regularisation']:.1e}"
        print(f"  {name:<16} {accuracy:<28} {chosen:<9} {result.seconds:7.1f}", flush=True)


def check_labels(train, test, least_images: int = 2) -> None:
    """Check that both sets have labels of the same classes, and no common image.

    Args:
      train: training images; every class needs `least_images` of them.
      test: test images; every class needs one.
      least_images: 2 where some of the training images are held out.

    Raises:
      ProbeError: they do not, or there is one class only.
    """
    for source, role in ((train, "training"), (test, "test")):
        if source.labels is None:
            raise ProbeError(f"{role} images must have labels. Received: {source.name}, split {source.split!r}")
    if len(train.class_names) < 2:
        raise ProbeError(
            f"a classifier needs at least two classes. Received: {', '.join(train.class_names)} in {train.name}. Sort "
            "the images into one folder per class."
        )
    # One split may overlap the other, for example train and train[80%:].
    shared = sorted(set(train.names) & set(test.names)) if train.name == test.name else []
    if shared:
        raise ProbeError(
            f"training and test images must differ: {len(shared)} are in both, such as {shared[0]}. Received: "
            f"{train.split!r} and {test.split!r} of {train.name}. Give both splits."
        )
    # NB: another order of the classes would compare labels that mean different things.
    if list(train.class_names) != list(test.class_names):
        unpaired = sorted(set(train.class_names) ^ set(test.class_names))
        reason = f"only in one set: {', '.join(unpaired[:5])}" if unpaired else "another order"
        raise ProbeError(f"training and test images must have the same classes. Received: {reason}")
    for source, role, least in ((train, "training", least_images), (test, "test", 1)):
        counts = np.bincount(source.labels, minlength=len(source.class_names))
        if counts.min() < least:
            name = source.class_names[int(counts.argmin())]
            raise ProbeError(
                f"every class needs at least {least} {role} image{'s' * (least > 1)}. Received: {counts.min()} of "
                f"class {name!r} in {source.name}, split {source.split!r}"
            )


def describe_data(train, test) -> dict[str, Any]:
    """Return the entry "dataset" of results.json."""
    description = {"name": train.name, "classes": list(train.class_names)}
    for side, source in (("train", train), ("test", test)):
        description[f"{side}_split"] = source.split
        description[f"{side}_images"] = source.num_examples
        description[f"{side}_broken"] = len(source.broken)
        description[f"{side}_fingerprint"] = source.fingerprint
    return description


def describe_run(probe: Probe, source) -> dict[str, Any]:
    """Return entries that `compare` and `ablate` share."""
    test = probe.test
    # Pre-training may have seen test images without their labels. Their number is reported where images have names.
    shared = len(set(source.names) & set(test.names)) if source.name == test.name else 0
    return {
        "protocol": dataclasses.asdict(probe.protocol),
        "dataset": describe_data(probe.train, test),
        "pretraining": {
            "name": source.name,
            "split": source.split,
            "images": source.num_examples,
            "fingerprint": source.fingerprint,
            "test_images": shared,
        },
    }
