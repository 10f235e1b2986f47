"""Online evaluation: its values, and that training does not notice it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lts import data, training
from lts.callbacks import OnlineProbe
from lts.config import preset
from lts.training import online_evaluation
from lts.training.online_evaluation import EvaluationImages, OnlineEvaluation
from lts.training.train import build_model
from lts.utils import representation
from tests.fixtures import runs
from tests.fixtures.spotting import write_run

NAMES = ["probe_knn_accuracy", "probe_rank", "probe_alignment", "probe_uniformity"]
STAGE_LAYERS = [
    ("autoencoder", "conv_3"),
    ("gan", "conv_3"),
    pytest.param("supervised", "conv_5", marks=pytest.mark.slow),
]
SMALL = {**runs.FIELDS, "batch_size": 4}


@pytest.fixture(scope="module")
def held_out():
    """Labelled images that training does not use."""
    return data.open_source("synthetic", "train[:24]", progress=False)


@pytest.mark.parametrize("stage", ["autoencoder", pytest.param("gan", marks=pytest.mark.slow)])
def test_training_does_not_notice_it(held_out, stage, tmp_path, monkeypatch, capsys):
    """Fails if an evaluation changes a bit of the training, depends on the start of a run, or leaves no trace."""
    config = preset("tiny", **SMALL, steps=6, ema_decay=0.9)
    source = data.open_source("synthetic", "unlabelled[:16]", progress=False)
    images = EvaluationImages.of_dataset(held_out, config.image)
    autoencoder = write_run(tmp_path / "stage_1", "autoencoder") if stage == "gan" else None

    def train(name: str, probe_steps: int) -> training.Result:
        options = training.MonitoringOptions(log_steps=2, histogram_steps=0, probe_steps=probe_steps)
        chosen = {"autoencoder": autoencoder, "probe_images": images, "options": options}
        return training.train(config, stage, source, tmp_path / name, **chosen)

    train("evaluated", 3)
    printed = capsys.readouterr().out
    # The other run is not evaluated before step 4, and resumes there with evaluations.
    with runs.stop_training_at(4, monkeypatch):
        assert train("resumed", 0).step == 4
    assert train("resumed", 3).step == 6

    runs.assert_same_weights(tmp_path / "evaluated", tmp_path / "resumed")
    lines = runs.metrics(tmp_path / "evaluated")
    resumed = runs.metrics(tmp_path / "resumed")
    assert lines[-1] == resumed[-1]
    for written, expected in ((lines, {2: [], 3: NAMES, 4: [], 6: NAMES}), (resumed, {2: [], 4: [], 6: NAMES})):
        evaluated = {line["step"]: [name for name in line if name.startswith("probe_")] for line in written}
        assert evaluated == expected

    assert f"{stage}: online evaluation every 3 steps on 24 images of split train[:24], 10 classes (not" in printed
    last = lines[-1]
    shown = f"{stage} step 6/6 kNN {100 * last[NAMES[0]]:.1f}% | rank {last[NAMES[1]]:.3g} | alignment "
    assert sum(shown in line for line in printed.splitlines()) == 1
    events = EventAccumulator(str(tmp_path / "evaluated" / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    for name in NAMES:
        written = {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(f"probe/{name}")}
        assert written == {line["step"]: pytest.approx(line[name]) for line in lines if name in line}
        description = events.SummaryMetadata(f"probe/{name}").summary_description
        assert "is better" in description


@pytest.mark.parametrize(("stage", "layer"), STAGE_LAYERS)
def test_features_are_those_of_an_export(held_out, stage, layer):
    """Fails if another network, layer, pooling or batch norm mode is evaluated, or views and labels are exchanged."""
    config = preset("tiny", **SMALL)
    model = build_model(config, stage, classes=10)
    network = model.encoder if stage == "autoencoder" else getattr(model, "discriminator", None) or model.network
    images = EvaluationImages.of_dataset(held_out, config.image)
    evaluation = online_evaluation.of_run(model, config, stage, held_out, images, 10)
    endpoints = (network if stage == "autoencoder" else network.backbone).endpoints

    def pooled(signed):
        return tf.reduce_mean(endpoints(signed)[layer], [1, 2]).numpy()

    views = next(iter(data.test_batches(held_out, config.image, batch_size=24)))
    augmented = []
    for seed in (0, 1):
        batch = next(iter(data.augmented_batches(held_out, config.image, batch_size=24, seed=seed)))
        augmented.append(pooled(data.as_signed(data.as_bytes(batch))))
    features = pooled(data.as_signed(views))
    values = evaluation.evaluate()
    assert list(values) == NAMES
    assert values["probe_knn_accuracy"] == representation.knn_accuracy(features, held_out.labels)
    assert values["probe_rank"] == pytest.approx(representation.effective_rank(features), rel=1e-4)
    assert values["probe_alignment"] == pytest.approx(representation.alignment(*augmented), rel=1e-4)
    assert values["probe_uniformity"] == pytest.approx(representation.uniformity(features), rel=1e-4)
    assert values["probe_alignment"] > 0


def test_labels_of_training_images_are_not_used(held_out, capsys):
    """Fails if labels that may be those of test images are used, or the report does not say which images these are."""
    config = preset("tiny", **SMALL)
    model = build_model(config, "autoencoder")
    evaluation = online_evaluation.of_run(model, config, "autoencoder", held_out, None, 500)
    assert list(evaluation.evaluate()) == NAMES[1:]
    assert "24 images of split train[:24], without labels (training may use them, too;" in capsys.readouterr().out


def test_odd_images_and_features(capsys):
    """Fails if one image, missing labels or features that are not finite end a training with a traceback."""
    images = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype(np.float32)
    with pytest.raises(data.DataError, match=r"two images at least. Received: 1. Give more."):
        EvaluationImages(images[:1])
    with pytest.raises(data.DataError, match="Received: 5 for 6 images"):
        EvaluationImages(images, views=(images, images[:5]))
    with pytest.raises(data.DataError, match=r"two views of the images\. Received: 1"):
        EvaluationImages(images, views=(images,))
    with pytest.raises(data.DataError, match="Received: images of type list"):
        EvaluationImages(list(images))
    classes = np.arange(6) % 2
    # The data sets of Keras have a column of labels.
    for labels in (classes[:, None], np.eye(2)[classes], classes.astype(str), np.array(1)):
        with pytest.raises(data.DataError, match=r"labels must be integers \[n\]"):
            EvaluationImages(images, labels=labels)
    tokens = np.zeros((6, 4, 3))
    for features in (tokens, tokens[:, 0, 0], tokens[:5, 0]):
        with pytest.raises(data.DataError, match=r"must be maps .* Received: .* for 6 images"):
            OnlineEvaluation(lambda batch, features=features: features, EvaluationImages(images)).evaluate()

    one_label = EvaluationImages(images, labels=np.array([-1, 3, -1, -1, -1, -1]))
    assert list(OnlineEvaluation(tf.identity, one_label).evaluate()) == ["probe_rank", "probe_uniformity"]
    unlabelled_outlier = EvaluationImages(images, labels=np.array([0, 0, 0, 1, 1, -1]))
    features = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [0.05, 1]])
    accuracy = OnlineEvaluation(lambda batch: features, unlabelled_outlier).evaluate()["probe_knn_accuracy"]
    assert accuracy == representation.knn_accuracy(features[:5], np.array([0, 0, 0, 1, 1]))

    assert OnlineEvaluation(lambda batch: batch / 0, EvaluationImages(images)).evaluate() == {}
    assert "features are not finite" in capsys.readouterr().err


def test_callback_of_fit(tmp_path):
    """Fails if later callbacks and the history do not get the values, or `fit` trains other weights."""
    images = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)
    labels = np.arange(8) % 2

    def fit(probes):
        keras.utils.set_random_seed(1)
        backbone = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
        model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        callbacks = [probe(backbone) for probe in probes]
        callbacks.append(keras.callbacks.CSVLogger(tmp_path / "log.csv"))
        history = model.fit(images, labels, batch_size=4, epochs=2, callbacks=callbacks, verbose=0).history
        return backbone, model.get_weights(), history

    _, expected, _ = fit([])
    views = (images[..., ::-1, :], images)
    backbone, weights, history = fit([lambda backbone: OnlineProbe(backbone, images, labels, views)])
    for value, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(value, other)
    assert {*NAMES, "loss"} == history.keys()
    features = backbone(images).numpy().mean((1, 2))
    assert history["probe_rank"][1] == pytest.approx(representation.effective_rank(features), rel=1e-4)
    assert history["probe_knn_accuracy"][1] == representation.knn_accuracy(features, labels)
    assert (tmp_path / "log.csv").read_text().startswith("epoch,loss,probe_alignment,")
    json.dumps(history)
