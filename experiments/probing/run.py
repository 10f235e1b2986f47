"""Probes of a model and its baselines on one data set: what the binaries of the probes and of fine-tuning run."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.probing import features, linear
from experiments.probing.features import ProbeError
from lts import data
from lts.config import ImageConfig
from lts.utils import files

PARTIAL = "partial.json"
Measure = Callable[..., dict[str, Any]]
Done = dict[str, dict[str, Any]]  # layer to "record" and "seconds"
ProbeModel = Callable[..., Iterator[Done]]


class Partial:
    """Results of single probes, kept in a file so that a run which was stopped goes on.

    The key of a result is a digest of all that decides it; results of other models, images or protocols may lie
    beside it and do no harm.
    """

    def __init__(self, path: pathlib.Path, context: Mapping[str, Any]):
        self._path, self._context = path, context
        try:
            self._records = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            self._records = {}

    def _key(self, model, layer: str) -> str:
        context = json.dumps([model.fingerprint, model.description, layer, self._context], sort_keys=True)
        return hashlib.sha256(context.encode()).hexdigest()

    def get(self, model, layer: str) -> dict[str, Any] | None:
        """The record of a layer, or None."""
        return self._records.get(self._key(model, layer))

    def put(self, model, records: Mapping[str, Any]) -> None:
        """Keeps the records of layers, in the file too."""
        self._records.update({self._key(model, layer): record for layer, record in records.items()})
        files.write_text(self._path, json.dumps(self._records))


def clear_cache(output) -> None:
    """Removes what a stopped run left in the folder."""
    (pathlib.Path(output) / PARTIAL).unlink(missing_ok=True)


def run(
    model,
    baselines: Sequence,
    train,
    test,
    layers: Sequence[str],
    protocol,
    output,
    batch_size: int,
    measure: Measure = linear.measure,
    probe_model: ProbeModel | None = None,
    columns: Sequence[str] = (),
) -> dict[str, Any]:
    """Probes every layer of the model and of each baseline; prints lines for each as it is done.

    Args:
      model: a loaded SavedModel.
      baselines: loaded SavedModels to put beside it.
      train, test: labelled sources with the same classes.
      layers: names of layers; empty: the protocol's, or all that the model has.
      protocol: a dataclass of `experiments.probing.protocols`: pooling, seed, what `measure` or `probe_model` reads.
      output: folder; `partial.json` in it lets a stopped run go on, until `clear_cache` removes it.
      batch_size: images in one forward pass; changes nothing but speed.
      measure: the probe of one layer: (training features, labels, test features, labels, protocol) to a record as
        `probes.of_images` and `probes.of_draws` make them, or to several by name.
      probe_model: how a model is probed: (model, layers), and by name train, test, protocol, output and batch_size, to
        an iterator of dicts from layer to "record" and "seconds"; what it has yielded is not done again after a stop.
        None: by its features, extracted once, and `measure`.
      columns: names of what `probe_model` gives, where they are no layers.

    Returns:
      What `results.json` holds: "kind"; "protocol"; "dataset" (splits, counts, classes); "layers"; "model" and each of
      "baselines" (path, fingerprint, description, and by layer the record); with baselines also "baseline_mean" and
      "difference" (paired) by layer; "seconds". Accuracies are fractions.

    Raises:
      ProbeError: labels are missing or do not match, or a model lacks a layer.
    """
    check_labels(train, test, getattr(protocol, "LEAST_IMAGES", 2))
    layers = list(dict.fromkeys(layers or getattr(protocol, "layers", ()))) or list(model.layers)
    if columns:
        layers = list(columns)
    else:
        _check_layers((model, *baselines), layers)
    context = {"protocol": dataclasses.asdict(protocol), "train": train.fingerprint, "test": test.fingerprint}
    partial = Partial(pathlib.Path(output) / PARTIAL, context)
    print(f"{'model':<40} {'layer':<12} accuracy  95 % interval   chosen     seconds", flush=True)
    inputs = {"train": train, "test": test, "protocol": protocol, "output": output, "batch_size": batch_size}
    probe = functools.partial(probe_model or functools.partial(of_features, measure=measure), **inputs)
    everything = [_probe_missing(candidate, layers, partial, probe) for candidate in (model, *baselines)]
    records = [{layer: done["record"] for layer, done in found.items()} for found in everything]
    return {
        "kind": protocol.KIND,
        "protocol": dataclasses.asdict(protocol),
        "dataset": _describe_data(train, test),
        "layers": layers,
        "model": _describe(model, records[0]),
        "baselines": [_describe(m, found) for m, found in zip(baselines, records[1:], strict=True)],
        **_against_baselines(records, protocol),
        "seconds": round(sum(done["seconds"] for found in everything for done in found.values()), 1),
    }


def _check_layers(models: Sequence, layers: Sequence[str]) -> None:
    """Raises `ProbeError` unless every model has every layer."""
    for model in models:
        missing = [layer for layer in layers if layer not in model.layers]
        if missing:
            raise ProbeError(f"{model.path} has no layer {missing[0]!r}; it has {', '.join(model.layers)}")


def run_each(
    models: Iterable, train, test, protocol, output, batch_size: int = 100, measure: Measure = linear.measure
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Probes every model at all of its own layers; prints lines for each as it is done.

    `partial.json` in the folder is kept, so that a later call with more models probes those alone.

    Args:
      models: loaded SavedModels; a generator loads one at a time.
      train, test, protocol, output, batch_size, measure: as `run`.

    Returns:
      For each model what results.json holds of it ("path", "fingerprint", "description", "seconds" of its training by
      stage, "layers"), and by layer its record with "correct", for `paired_difference`.

    Raises:
      ProbeError: labels are missing or do not match.
    """
    check_labels(train, test)
    context = {"protocol": dataclasses.asdict(protocol), "train": train.fingerprint, "test": test.fingerprint}
    partial = Partial(pathlib.Path(output) / PARTIAL, context)
    print(f"{'model':<40} {'layer':<12} accuracy  95 % interval   chosen     seconds", flush=True)
    inputs = {"train": train, "test": test, "protocol": protocol, "output": output, "batch_size": batch_size}
    probe = functools.partial(of_features, measure=measure, **inputs)
    found = []
    for model in models:
        done = _probe_missing(model, model.layers, partial, probe)
        records = {layer: one["record"] for layer, one in done.items()}
        found.append(({**_describe(model, records), "seconds": model.description.get("seconds", {})}, records))
    return found


def paired_difference(one: Mapping[str, Any], others: Sequence[Mapping[str, Any]], protocol) -> tuple[dict, dict]:
    """Mean of the others and the paired difference of one to it, by layer, at the layers that all have.

    Args:
      one, others: records by layer, of `run_each`.
      protocol: of all of them.

    Returns:
      Layer to "accuracy" and "interval", of the mean and of the difference.
    """
    layers = [layer for layer in one if all(layer in other for other in others)]
    return linear.compare([{layer: records[layer] for layer in layers} for records in (one, *others)], protocol)


def describe_run(protocol, train, test, source) -> dict[str, Any]:
    """What results.json says of the probes' protocol and images, and of the images of pre-training.

    Args:
      protocol: a dataclass of `experiments.probing.protocols`.
      train, test: labelled sources.
      source: images of pre-training.

    Returns:
      "protocol"; "dataset" as `run` gives it; "pretraining": split, number and fingerprint of the images, and how many
      of them are test images too, where images have names.
    """
    shared = len(set(source.names) & set(test.names)) if source.name == test.name else 0
    seen = {"name": source.name, "split": source.split, "images": source.num_examples}
    return {
        "protocol": dataclasses.asdict(protocol),
        "dataset": _describe_data(train, test),
        "pretraining": {**seen, "fingerprint": source.fingerprint, "test_images": shared},
    }


def check_labels(train, test, least: int = 2) -> None:
    """Raises `ProbeError` unless both sources have labels, of the same classes, each with a test image and so many
    training images at least: two where some are held out.
    """
    for source, role in ((train, "training"), (test, "test")):
        if source.labels is None:
            raise ProbeError(f"the {role} images have no labels: {source.name} ({source.split})")
    if list(train.class_names) != list(test.class_names):
        odd = sorted(set(train.class_names) ^ set(test.class_names))
        what = f"only on one side: {', '.join(odd[:5])}" if odd else "in another order"
        raise ProbeError(f"training and test images do not have the same classes: {what}")
    for source, role, wanted in ((train, "training", least), (test, "test", 1)):
        counts = np.bincount(source.labels, minlength=len(source.class_names))
        if counts.min() < wanted:
            name = source.class_names[int(counts.argmin())]
            images = ("no", "one")[counts.min()]
            raise ProbeError(
                f"class {name!r} has {images} {role} image{'' if counts.min() else 's'}, and needs {wanted} at least: "
                f"{source.name} ({source.split})"
            )


def _probe_missing(model, layers: Sequence[str], partial: Partial, probe: ProbeModel) -> Done:
    """What is known of all layers of a model: those not yet in `partial` are probed."""
    found = {layer: partial.get(model, layer) for layer in layers}
    missing = [layer for layer in layers if found[layer] is None]
    for layer in layers:
        if layer not in missing:
            _print_lines(model.path, layer, **found[layer])
    for some in probe(model, missing) if missing else ():
        partial.put(model, some)
        found.update(some)
        for layer, done in some.items():
            _print_lines(model.path, layer, **done)
    return found


def of_features(
    model, layers: Sequence[str], *, train, test, protocol, output, batch_size: int, measure: Measure
) -> Iterator[Done]:
    """Probes a model by its features, extracted once for all layers; arguments as `run`'s.

    Yields:
      One layer's "record" and "seconds", those of the extraction shared out.
    """
    started = time.monotonic()
    image = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
    extracted = [
        features.extract(
            model,
            data.test_batches(source, image, batch_size=batch_size),
            source.num_examples,
            layers,
            protocol.dimensions,
            protocol.pool,
            title=f"{model.path}: features of the {role} images",
        )
        for source, role in ((train, "training"), (test, "test"))
    ]
    shared = (time.monotonic() - started) / len(layers)
    for layer in layers:
        started = time.monotonic()
        pair = [values.pop(layer) for values in extracted]  # gigabytes: let go as soon as used
        record = measure(pair[0], train.labels, pair[1], test.labels, protocol)
        yield {layer: {"record": record, "seconds": shared + time.monotonic() - started}}


def _print_lines(path, layer: str, record: Mapping[str, Any], seconds: float) -> None:
    """A line for a record, or for each of several; the time is that of the layer."""
    several = {layer: record} if "accuracy" in record else {f"{layer} {name}": r for name, r in record.items()}
    for name, one in several.items():
        low, high = (100 * value for value in one["interval"])
        chosen = one.get("neighbours", one.get("regularisation"))
        print(
            f"{str(path)[-40:]:<40} {name:<12} {100 * one['accuracy']:6.1f} %  [{low:5.1f}, {high:5.1f}]"
            f"  {'' if chosen is None else format(chosen, '.1e' if chosen < 1 else 'd'):<10}"
            f" {seconds:7.1f}",
            flush=True,
        )


def _describe(model, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A model and its layers' results, as in results.json."""
    return {
        "path": str(model.path),
        "fingerprint": model.fingerprint,
        "description": model.description,
        "layers": {name: {k: v for k, v in record.items() if k != "correct"} for name, record in records.items()},
    }


def _describe_data(train, test) -> dict[str, Any]:
    sides = {"train": train, "test": test}
    return {
        "name": train.name,
        "classes": list(train.class_names),
        **{f"{side}_split": source.split for side, source in sides.items()},
        **{f"{side}_images": source.num_examples for side, source in sides.items()},
        **{f"{side}_broken": len(source.broken) for side, source in sides.items()},
        **{f"{side}_fingerprint": source.fingerprint for side, source in sides.items()},
    }


def _against_baselines(records: Sequence[Mapping[str, Any]], protocol) -> dict[str, Any]:
    """Mean accuracy of the baselines, and the model's paired difference to it, with intervals; empty without any."""
    if len(records) == 1:
        return {}
    mean, difference = linear.compare(records, protocol)
    return {"baseline_mean": mean, "difference": difference}
