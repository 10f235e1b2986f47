"""Features without labels: nearest neighbours, clusters and near-duplicates.

Each layer is pooled to a few thousand values, see `experiments.probing.features.extract`, and the mean over the images
is subtracted. Without the subtraction all cosine similarities are near 1, because activations are positive.

All records are JSON-ready. A record of an image holds its "image" (name), "number" (position in the split), and its
"class" if it has a label.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.cluster import KMeans
from threadpoolctl import ThreadpoolController

from experiments.probing import projector
from experiments.probing.features import extract
from experiments.probing.probe import ProbeError
from experiments.probing.protocols import NeighboursProtocol
from lts import data
from lts.config import ImageConfig
from lts.spotting.metadata import describe_model, describe_source, image_name, versions
from lts.utils.representation import nearest, normalized, similar_pairs

MEASURED = 1000  # images whose neighbours are counted, evenly spaced
CANDIDATES = 10_000  # pairs of similar features whose pictures are compared
PICTURE_CORRELATION = 0.9  # least correlation of the pictures of near-duplicates, see `near_duplicates`
LISTED_PAIRS = 1000  # near-duplicates in the results
RESTARTS = 3  # of k-means
RANDOM = "random weights"  # path of `RandomModel`
# On busy cores the threads of BLAS and OpenMP wait for each other: up to ten times slower than one thread.
one_thread = ThreadpoolController().wrap(limits=1)


class RandomModel:
    """Untrained discriminator, called as an export is.

    Args:
      network: from `lts.training.random_network`.
      seed: of its weights.
    """

    path = RANDOM
    fingerprint = None

    def __init__(self, network, seed: int):
        self.layers = tuple(network.backbone.layer_names)
        self.description = {"weights": "random", "seed": seed}
        self._forward = tf.function(lambda images: network.backbone.endpoints(data.as_signed(images)))

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the maps of all layers for uint8 [B, H, W, 3]."""
        return self._forward(images)


def centred_features(model, layers: Sequence[str], source, image: ImageConfig, dimensions: int) -> dict[str, Any]:
    """Return the features of all images by layer, float32 [N, about `dimensions`], minus their mean.

    Args:
      model: a loaded SavedModel, or a `RandomModel`.
      layers: names of its layers.
      source: images of `lts.data`, with labels or without.
      image: size and central crop of the views.
      dimensions: see `experiments.probing.features.pooled_cells`.
    """
    batches = data.test_batches(source, image, batch_size=100)
    features = extract(
        model, batches, source.num_examples, layers, dimensions=dimensions, title=f"features of {model.path}"
    )
    for values in features.values():
        values -= values.mean(axis=0)
    return features


@one_thread
def compare(
    model_features: np.ndarray, baseline_features: np.ndarray, source, protocol: NeighboursProtocol
) -> dict[str, Any]:
    """Compare the neighbours in two sets of features of the same images.

    Args:
      model_features: float32 [N, dimensions], centred.
      baseline_features: float32 [N, any number].
      source: the images.
      protocol: number of neighbours, and of images to list.

    Returns:
      "neighbours": for each of the listed images its record and those of its neighbours by "model" and "baseline", with
      their "similarity"; "common": the share of the model's neighbours that the baseline has, too; "same_class" by
      "model", "baseline" and "chance" where images have labels: the share of neighbours of the image's class.
    """
    count = min(protocol.neighbours, source.num_examples - 1)
    by_side = {"model": model_features, "baseline": baseline_features}
    shown = choose_shown(source, protocol.shown)
    found = {side: nearest(features, shown, count) for side, features in by_side.items()}
    listed = []
    for position, row in enumerate(shown):
        record = {"of": image_record(source, row)}
        for side, (numbers, similarities) in found.items():
            record[side] = similar_images(source, numbers[position], similarities[position])
        listed.append(record)
    rows = projector.evenly_spaced(source.num_examples, MEASURED)
    measured = {side: nearest(features, rows, count)[0] for side, features in by_side.items()}
    pairs = zip(measured["model"], measured["baseline"], strict=True)
    common = np.mean([np.isin(ours, others).mean() for ours, others in pairs])
    result = {"neighbours": listed, "common": float(common)}
    if source.labels is not None and (source.labels[rows] >= 0).any():
        result["same_class"] = _same_class(source.labels, rows, measured)
    return result


def _same_class(labels: np.ndarray, rows: np.ndarray, measured: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the share of neighbours of the image's class, over the images with a label, and that of any images."""
    labelled = labels[rows] >= 0
    own = labels[rows][labelled, None]
    shares = {side: float(np.mean(labels[numbers[labelled]] == own)) for side, numbers in measured.items()}
    # An image is not its own neighbour.
    others = [np.sum(labels == label) - 1 for label in own[:, 0]]
    return {**shares, "chance": float(np.mean(others) / (len(labels) - 1))}


def choose_shown(source, count: int) -> np.ndarray:
    """Return the numbers of the images to show, of all classes in turn where there are labels."""
    if source.labels is None:
        return projector.evenly_spaced(source.num_examples, count)
    labelled = np.flatnonzero(source.labels >= 0)
    if not len(labelled):
        return projector.evenly_spaced(source.num_examples, count)
    return labelled[projector.choose(source.labels[labelled], count)]


@one_thread
def clusters(features: np.ndarray, source, protocol: NeighboursProtocol) -> list[dict[str, Any]]:
    """Return clusters of k-means, the largest first.

    Args:
      features: float32 [N, dimensions], centred. Only their directions count.
      source: the images.
      protocol: number of clusters and of central images, seed.

    Returns:
      For each cluster "images", their number; "central", the records of the images nearest to its centre. Where it
      holds images with labels also "class", the most frequent one, and "share", that of this class among them.
    """
    unit = normalized(features).astype(np.float32)
    count = min(protocol.clusters, len(unit))
    means = KMeans(count, n_init=RESTARTS, random_state=protocol.seed).fit(unit)
    records = []
    for cluster in range(count):
        rows = np.flatnonzero(means.labels_ == cluster)
        similarity = unit[rows] @ normalized(means.cluster_centers_[[cluster]])[0].astype(np.float32)
        central = rows[np.argsort(-similarity, kind="stable")[: protocol.central]]
        record = {"images": len(rows), "central": [image_record(source, row) for row in central]}
        labels = source.labels[rows] if source.labels is not None else np.zeros(0, np.int64)
        labels = labels[labels >= 0]
        if len(labels):
            numbers = np.bincount(labels)
            record["class"] = source.class_names[int(numbers.argmax())]
            record["share"] = float(numbers.max() / len(labels))
        records.append(record)
    return sorted(records, key=lambda record: -record["images"])


@one_thread
def near_duplicates(features: np.ndarray, source, image: ImageConfig, protocol: NeighboursProtocol) -> dict[str, Any]:
    """Return pairs of nearly equal images.

    Their features are similar, and so are the pictures themselves. Without the second condition, photographs of a few
    small things on a blank background would be most of the pairs.

    Args:
      features: float32 [N, dimensions], centred.
      source: the images.
      image: size and central crop of the views.
      protocol: names the least similarity.

    Returns:
      "number" of all pairs among the `CANDIDATES` of the most similar features, and the most similar "pairs", each with
      both "images" and their "similarity".
    """
    numbers, similarities, _ = similar_pairs(features, protocol.duplicate_similarity, CANDIDATES)
    pairs = []
    if len(numbers):
        rows, positions = np.unique(numbers, return_inverse=True)
        first, second = _small_pictures(source, rows, image)[positions.reshape(numbers.shape)].swapaxes(0, 1)
        equal = np.sum(first * second, axis=1) >= PICTURE_CORRELATION
        for pair, similarity in zip(numbers[equal], similarities[equal], strict=True):
            images = [image_record(source, row) for row in pair]
            pairs.append({"images": images, "similarity": round(float(similarity), 4)})
    return {"number": len(pairs), "pairs": pairs[:LISTED_PAIRS]}


def _small_pictures(source, rows: np.ndarray, image: ImageConfig) -> np.ndarray:
    """Return images of 16 pixels a side, minus the mean of each channel and with length 1: float [n, 768]."""
    views = data.test_batches(projector.Chosen(source, rows), image, batch_size=100)
    small = np.concatenate([tf.image.resize(batch, [16, 16], "area").numpy() for batch in views])
    small -= small.mean(axis=(1, 2), keepdims=True)
    return normalized(small.reshape(len(rows), -1))


def look(model, baseline, source, protocol: NeighboursProtocol) -> dict[str, Any]:
    """Return the content of neighbours.json.

    Args:
      model: a loaded SavedModel.
      baseline: another, or a `RandomModel`.
      source: images of `lts.data`, with labels or without.
      protocol: what to compare.

    Raises:
      ProbeError: there is one image only, or the baseline lacks a layer.
    """
    if source.num_examples < 2:
        raise ProbeError(f"neighbours need at least two images. Received: {source.num_examples} of {source.name}.")
    for layer in model.layers:
        if layer not in baseline.layers:
            known = ", ".join(baseline.layers)
            raise ProbeError(
                f"the baseline must have the layers of the model. Received: {baseline.path} without {layer}. It has "
                f"{known}."
            )
    image = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
    sides = {}
    for side, network in (("model", model), ("baseline", baseline)):
        sides[side] = centred_features(network, model.layers, source, image, protocol.dimensions)
    layers = {}
    for layer in model.layers:
        layers[layer] = compare(sides["model"][layer], sides["baseline"][layer], source, protocol)
    features = sides["model"][model.default_layer]
    return {
        "kind": "neighbours",
        "protocol": dataclasses.asdict(protocol),
        "model": describe_model(model),
        "baseline": describe_model(baseline),
        "images": describe_source(source),
        "layers": layers,
        "default_layer": model.default_layer,
        "clusters": clusters(features, source, protocol),
        "near_duplicates": near_duplicates(features, source, image, protocol),
        "versions": versions(),
    }


def similar_images(source, numbers: np.ndarray, similarities: np.ndarray) -> list[dict[str, Any]]:
    """Return the records of neighbours."""
    records = []
    for number, similarity in zip(numbers, similarities, strict=True):
        records.append({**image_record(source, number), "similarity": round(float(similarity), 4)})
    return records


def image_record(source, number: int) -> dict[str, Any]:
    """Return the record of an image."""
    record = {"image": image_name(source, int(number)), "number": int(number)}
    if source.labels is not None and source.labels[number] >= 0:
        record["class"] = source.class_names[source.labels[number]]
    return record
