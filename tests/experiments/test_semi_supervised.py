"""Labels in pre-training: a run with few labels, its export, and the comparison with fine-tuning."""

import dataclasses

import numpy as np
import pytest

import lts
from experiments import semi_supervised
from lts import data, training
from lts.data import share_of_labels
from lts.export.saved_model import ExportError
from lts.spotting import Corruption
from lts.training.checkpoints import TrainingError
from tests.fixtures import probe_binaries
from tests.fixtures.exports import CONFIG
from tests.fixtures.runs import newest

SHARES = {"0.1": 10, "0.5": 50}  # to the number of labels
LABELS = CONFIG.replace(labels_weight=1.0, real_source="mixed", recalibrate_batch_norm=True)
IMAGES = ("--dataset=synthetic", "--train_split=train[:100]", "--test_split=test[:30]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with an autoencoder, and runs and exports without labels and with a share of them."""
    folder = tmp_path_factory.mktemp("runs")
    source = data.open_source("synthetic", "unlabelled[:40]+train[:100]", progress=False)
    training.train(CONFIG, "autoencoder", source, folder / "ae")
    configs = {"none": CONFIG} | {share: LABELS.replace(labels_share=share) for share in SHARES}
    for name, config in configs.items():
        training.train(config, "gan", source, folder / name, autoencoder=folder / "ae")
        training.export_run(folder / name, folder / "features" / name, source=source)
    return folder


def test_training_and_export(runs):
    """Fails if the labels are not those of the share, head or card know other classes, or evaluations do not start."""
    record = training.read_run_config(runs / "0.1")
    source = data.open_source("synthetic", "unlabelled[:40]+train[:100]", progress=False)
    assert record.details["labels"]["images"] == (share_of_labels(source.labels, source.names, 0.1) >= 0).sum() == 10
    assert record.details["classes"] == list(source.class_names)
    # The program that damages images for an evaluation builds the same model.
    assert Corruption(runs / "0.1").record.details == record.details
    model = lts.load(runs / "features" / "0.1")
    images = np.random.default_rng(0).integers(0, 256, (4, model.image_size, model.image_size, 3), np.uint8)
    probabilities = model.classify(images).numpy()
    assert probabilities.shape == (4, 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    head = newest(runs / "0.1")["discriminator/labels_head/kernel"]
    assert head.shape == (1, 1, CONFIG.discriminator.fc_units, 10)
    assert "trained with 10 labels of 10 classes" in (model.path / "README.md").read_text()
    with pytest.raises(ExportError, match="knows no classes"):
        lts.load(runs / "features" / "none").classify(images)


def test_a_changed_label_is_another_run(runs):
    """Fails if a run resumes with other labels, or labels are missing without a word."""
    source = data.open_source("synthetic", "unlabelled[:40]+train[:100]", progress=False)
    labels = np.where(source.labels < 0, -1, (source.labels + 1) % 10)
    relabelled = dataclasses.replace(source, labels=labels)
    with pytest.raises(TrainingError, match=r"another configuration \(labels.fingerprint: "):
        training.train(LABELS.replace(labels_share=0.1), "gan", relabelled, runs / "0.1", autoencoder=runs / "ae")
    unlabelled = data.open_source("synthetic", "unlabelled[:40]", progress=False)
    with pytest.raises(TrainingError, match="the images have no labels"):
        training.train(LABELS, "gan", unlabelled, runs / "new", autoencoder=runs / "ae")


def test_comparison(runs, tmp_path):
    """Fails if a column compares other labels, or the accuracy is not that of the signature `classify`."""
    models = ",".join(str(runs / "features" / share) for share in reversed(SHARES))
    arguments = (f"--model={models}", f"--baseline={runs / 'features' / 'none'}", *IMAGES)
    results = probe_binaries.run(semi_supervised, tmp_path / "results", *arguments, "--epochs=1", "--batch_size=10")
    assert results["layers"] == ["10 %", "50 %"]
    test = data.open_source("synthetic", "test[:30]", role="test", progress=False)
    model = lts.load(runs / "features" / "0.1")
    views = np.concatenate(list(data.test_batches(test, model.config.image, batch_size=30)))
    accuracy = np.mean(np.argmax(model.classify(views), 1) == test.labels)
    np.testing.assert_allclose(results["model"]["layers"]["10 %"]["accuracy"], accuracy)
    (folder,) = (tmp_path / "results" / "50_percent" / "training").iterdir()
    assert training.read_run_config(folder).data["images"] == 50
    arguments = (f"--model={runs / 'features' / '0.1'}", "--dataset=synthetic", "--train_split=train[:200]", IMAGES[2])
    message = "was trained with 10 labels, not with those of the training images"
    probe_binaries.check_error(semi_supervised, arguments, 1, message)
    # Other images with as many labels of the same classes.
    arguments = (
        f"--model={runs / 'features' / '0.1'}",
        "--dataset=synthetic",
        "--train_split=train[100:200]",
        IMAGES[2],
    )
    probe_binaries.check_error(semi_supervised, arguments, 1, "was trained with the labels of other images")
    arguments = (f"--model={runs / 'features' / 'none'}", *IMAGES)
    probe_binaries.check_error(semi_supervised, arguments, 1, "the export tells no classes")
