"""Whole runs of both binaries on a tiny devkit: trained layers, resume, scores of perfect predictions, errors."""

import dataclasses
import json
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

import lts
from experiments import report, voc_classification, voc_segmentation
from experiments.reporting import results as result_files
from experiments.reporting import tables
from experiments.voc import classification, segmentation, transfer
from experiments.voc import run as voc_run
from experiments.voc.classification import Classification
from experiments.voc.data.images import open_images
from experiments.voc.protocols import CLASSIFICATION, SEGMENTATION
from lts.data import DataError
from lts.export.saved_model import ExportError
from lts.networks.variables import variables_by_path
from lts.training import checkpoints
from lts.training.loop import Loop
from lts.training.optimizers import build_optimizer
from lts.utils.files import OutputError
from tests.fixtures import tiny_devkit, tiny_models
from tests.fixtures.binaries import call

BINARIES = {"classification": voc_classification, "segmentation": voc_segmentation}
SIGNALS = {"classification": signal.SIGINT, "segmentation": signal.SIGTERM}
EXTRA = {"classification": ("--rule=area",), "segmentation": ("--crop=32", "--form=32s")}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny_models.make(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("kit") / "VOC2007"
    tiny_devkit.write(path)
    return path


def weights(folder):
    return checkpoints.read_newest(folder)[0]


def moved(folder, loaded) -> tuple[set[str], set[str]]:
    """Layers of the backbone that are not bit-identical to the export's, and of them those whose statistics are not."""
    given, values = variables_by_path(loaded.keras_model().backbone), weights(folder)
    found = [p for p, v in given.items() if not np.array_equal(values[f"network/features/trunk/{p}"], v)]
    return {p.split("/")[0] for p in found}, {p.split("/")[0] for p in found if "moving" in p}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BINARIES)
def test_whole_runs_with_a_stop(kind, models, root, tmp_path, monkeypatch):
    """Fails if a run stopped in its baseline is not bit-identical to an uninterrupted one, or leaves a partial file."""
    arguments = (f"--baseline={models / 'random_1'}", *EXTRA[kind])
    once = tiny_models.run(BINARIES[kind], models, root, tmp_path / "once", *arguments)
    report_, starts = Loop._report, []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the binaries catch it

    def stop(loop, step, total):
        report_(loop, step, total)
        starts.append(step)
        if len(starts) == 3:  # the model's three steps are two calls; the first of the baseline's
            signal.raise_signal(SIGNALS[kind])

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny_models.run(BINARIES[kind], models, root, tmp_path / "twice", *arguments)
    signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "twice" / "results.json").exists()
    twice = tiny_models.run(BINARIES[kind], models, root, tmp_path / "twice", *arguments)
    _same(once, twice)
    for folder in (tmp_path / "once" / "training").iterdir():
        whole, halves = weights(folder), weights(tmp_path / "twice" / "training" / folder.name)
        for name, value in whole.items():
            np.testing.assert_array_equal(halves[name], value, err_msg=name)
    assert not (tmp_path / "twice" / "partial.json").exists()
    _check_results(once, kind, tmp_path / "once")
    loaded = lts.load(models / "features")
    assert moved(tmp_path / "once" / "training" / f"{loaded.fingerprint}_1", loaded) == (
        {f"conv_{layer}" for layer in range(1, 6)},
        set(),  # statistics stay the export's
    )


def _same(once, twice):
    for results in (once, twice):
        results["seconds"] = 0
        for model in results["models"]:
            for record in model["seeds"]:
                record["seconds"] = 0
    assert once == twice


def _check_results(results, kind, output):
    """Results, tables and pictures of a run with one baseline and one seed."""
    ours, other = results["models"]
    assert results["task"] == f"voc_{kind}"
    assert [ours["baseline"], other["baseline"]] == [False, True]
    known = [value for value in ours["per_class"].values() if value is not None]
    assert ours["value"] == pytest.approx(np.mean(known))
    assert ours["difference"]["value"] == pytest.approx(ours["value"] - other["value"])
    assert ours["difference"]["interval"][0] <= ours["difference"]["value"] <= ours["difference"]["interval"][1]
    assert results["baseline_mean"]["value"] == other["value"]
    loaded = result_files.load(output / "results.json")
    assert loaded.kind == "voc"
    table = tables.table([loaded])
    assert table[0][1:] == [results["measure"], *results["classes"]]
    assert [row[0].split(",")[0] for row in table[1:]] == ["random initialisation", "**ours", "difference (paired)"]
    assert f"voc_{kind}, custom" in report.text([loaded], {})
    assert f"{kind} on folder:" in (output / "results.md").read_text()
    for name in ("results.png", "pictures/model.png", "pictures/baseline_1.png"):
        assert Image.open(output / name).size[0] > 300
    events = event_accumulator.EventAccumulator(str(next((output / "training").iterdir()) / "tensorboard"))
    events.Reload()
    assert any(tag.startswith("pictures/image") for tag in events.Tags()["tensors"])
    assert f"loss/{kind}" in events.Tags()["tensors"]


def test_frozen_layers_several_seeds_and_batch_statistics(models, root, tmp_path, monkeypatch, capsys):
    """Fails if frozen layers move, seeds are not averaged, or a picture that fails costs the results."""

    def fail(*_):
        raise ValueError("no such glyph")

    monkeypatch.setattr(Classification, "draw", fail)
    arguments = ("--seeds=2,1", "--frozen=3", "--batch_norm=batch", "--optimizer=sgd", "--rate_steps=2", "--steps=2")
    results = tiny_models.run(voc_classification, models, root, tmp_path, *arguments)
    loaded, (ours,) = lts.load(models / "features"), results["models"]
    values = [record["value"] for record in ours["seeds"]]
    assert [record["seed"] for record in ours["seeds"]] == [1, 2]
    assert ours["value"] == pytest.approx(np.mean(values))
    assert "difference" not in ours
    assert ours["interval"][0] <= ours["value"] <= ours["interval"][1]
    folders = [tmp_path / "training" / f"{loaded.fingerprint}_{seed}" for seed in (1, 2)]
    assert [moved(folder, loaded) for folder in folders] == [({"conv_4", "conv_5"}, {"conv_4", "conv_5"})] * 2
    kernels = [weights(folder)["network/head/score/kernel"] for folder in folders]
    assert not np.array_equal(*kernels)
    assert "Mean over 2 seeds" in (tmp_path / "results.md").read_text()
    assert capsys.readouterr().err.count("model.png was not drawn (no such glyph)") == 1


def test_segmentation_in_short(models, root, tmp_path):
    """One step; a second call reads the finished run and gives the same."""
    given = (voc_segmentation, models, root, tmp_path, "--crop=32", "--steps=1", "--fc_kernel=1")
    once = tiny_models.run(*given)
    assert once["classes"] == ["0", "1", "2", "3"]
    assert 0 < once["models"][0]["seeds"][0]["pixel_accuracy"] < 1
    assert (tmp_path / "pictures" / "model.png").exists()
    _same(once, tiny_models.run(*given, "--skip_broken_images"))


class Oracle:
    """Predicts what it is told."""

    size = 16

    def __init__(self, answers):
        self.answers = iter(answers)

    def mean_logits(self, views):
        assert views.shape[1:] == (10, 16, 16, 3)
        return tf.stack([next(self.answers) for _ in range(len(views))])

    def predict_one(self, image):
        return tf.constant(next(self.answers))


def opened(root, task, split="test", **options):
    return open_images(f"folder:{root}", split, task, progress=False, **options)


def test_perfect_predictions_get_one(root):
    images = opened(root, "classification")
    labels = images.set.image_labels()
    task = classification.Classification(images, images, CLASSIFICATION["small"])
    rows = np.where(labels == -1, 9.0, labels).astype(np.float32)  # a difficult one scored high does no harm
    found = task.evaluate(Oracle(rows), "oracle")
    assert (found.value, list(found.per_class)) == (1.0, [1.0] * 3)
    assert found.figures["rules"]["area"]["mean"] == 1.0
    assert task.evaluate(Oracle(-rows), "opposite").value < 0.8
    masks = opened(root, "segmentation", "val")
    task = segmentation.Segmentation(masks, masks, SEGMENTATION["small"])
    truth = [masks.set.read_mask(index) for index in range(4)]
    found = task.evaluate(Oracle([np.where(mask == 255, 0, mask) for mask in truth]), "oracle")
    assert (found.value, found.figures["pixel_accuracy"]) == (1.0, 1.0)
    shifted = task.evaluate(Oracle([np.zeros_like(mask) for mask in truth]), "background")
    assert shifted.per_class[0] == shifted.figures["pixel_accuracy"]
    assert shifted.value == pytest.approx(shifted.per_class[0] / 4)
    once = found.weighted(np.array([2, 0, 0, 0]))
    assert set(once[~np.isnan(once)]) == {1.0}


def test_label_loss_is_numpys():
    random = np.random.default_rng(1)
    logits, labels = random.normal(0, 3, [5, 4]).astype(np.float32), random.integers(-1, 2, [5, 4])
    share = 1 / (1 + np.exp(-logits.astype(np.float64)))
    terms = -np.where(labels == 1, np.log(share), np.log(1 - share))
    wanted = np.where(labels == -1, 0, terms).sum(1).mean()
    assert float(classification.label_loss(logits, labels)) == pytest.approx(wanted, rel=1e-5)


def test_pixel_loss_is_numpys_and_blind_to_ignored_pixels():
    random = np.random.default_rng(1)
    logits = random.normal(0, 3, [2, 4, 5, 3]).astype(np.float32)
    masks = random.choice([0, 1, 2, 255], [2, 4, 5]).astype(np.uint8)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    terms = [-logs[(*place, masks[place])] for place in np.ndindex(masks.shape) if masks[place] != 255]
    assert float(segmentation.pixel_loss(logits, masks)) == pytest.approx(np.mean(terms), rel=1e-5)
    other = np.where((masks == 255)[..., None], 99.0, logits).astype(np.float32)
    assert float(segmentation.pixel_loss(other, masks)) == pytest.approx(np.mean(terms), rel=1e-5)
    assert float(segmentation.pixel_loss(logits, np.full_like(masks, 255))) == 0


@pytest.mark.parametrize("form", ["32s", "16s"])
def test_scores_are_enlarged_to_where_they_belong(form, models):
    """A map of single bright cells: each pixel's logit is largest nearest to the cell's own centre."""
    loaded = lts.load(models / "features")
    protocol = SEGMENTATION["small"].replace(form=form, fc_kernel=1)
    head = segmentation.FCNHead(loaded.geometry["conv_5"].windows, loaded.config.discriminator.fc_units, 2, protocol)
    head.build((None, None, None, 8))
    for layer in (head.fc_1, head.fc_2):
        layer.kernel.assign(tf.ones_like(layer.kernel))
    chosen = head.score_skip if form == "16s" else head.score
    chosen.kernel.assign(tf.ones_like(chosen.kernel))
    features = np.zeros([1, 8, 8, 8], np.float32)  # of 64 pixels at stride 8
    features[0, 3, 5] = 1
    logits = head(features, tf.constant([64, 64])).numpy()[0, :, :, 0]
    assert logits.shape == (64, 64)
    at = np.unravel_index(logits.argmax(), logits.shape)
    # Kernel 3 and pools 3, strides 2: centred on pixels 8 i + 7; pool_5 sees cells 2 j to 2 j + 2: 16 j + 15.
    assert at == ((8 * 3 + 7, 8 * 5 + 7) if form == "16s" else (16 * 1 + 15, 16 * 2 + 15))


def test_batches_are_functions_of_seed_and_position(models, root):
    loaded, images = lts.load(models / "features"), opened(root, "segmentation", "train")
    task = segmentation.Segmentation(images, images, SEGMENTATION["small"].replace(crop=24, batch_size=3))
    share = tf.distribute.InputContext()
    first, *_, fourth = task.batches(loaded, 1, share, 0, 4)
    (again,) = task.batches(loaded, 1, share, 3, 1)
    (other,) = task.batches(loaded, 2, share, 3, 1)
    for one, two, three, four in zip(fourth, again, other, first, strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)
        assert not np.array_equal(one, four)
    assert fourth[0].shape == (3, 24, 24, 3)
    assert float(tf.reduce_max(tf.abs(fourth[0]))) <= 1
    files = task.train.store
    assert np.array_equal(opened(root, "segmentation", "train", cache_gb=0).read(2), files.read(2))


@pytest.mark.parametrize("kind", BINARIES)
def test_what_monitoring_shows(kind, models, root):
    """Gradients of everything that learns, and pictures between -1 and 1, one row a sample."""
    images = opened(root, kind, "train")
    if kind == "classification":
        task = classification.Classification(images, images, CLASSIFICATION["small"].replace(frozen=2))
    else:
        task = segmentation.Segmentation(images, images, SEGMENTATION["small"].replace(frozen=2, crop=32))
    made = transfer.make_task(task, lts.load(models / "features"), 1)
    model = made.build()
    shown = model.histograms(made.samples)
    gradients = {name for name, value in shown.items() if name.startswith("gradients/") and value is not None}
    assert len(gradients) == len(model.trainable_variables)
    assert not any("conv_2" in name for name in gradients)
    assert any("conv_3" in name for name in gradients)
    pictures = model.pictures(made.samples)
    assert {value.shape[:3] for value in pictures.values()} == {made.samples[0].shape[:3]}
    assert all(float(tf.reduce_max(tf.abs(value))) <= 1.001 for value in pictures.values())
    assert model.filters().shape[:3] == (3, 3, 3)


def test_sgd_is_caffes():
    """Momentum, biases at twice the rate, clipping by the norm before that, the rate's steps."""
    protocol = dataclasses.replace(CLASSIFICATION["voc2007"], rate_steps=1, learning_rate=0.1, global_clipnorm=5.0)
    optimizer = build_optimizer(protocol, protocol.steps, transfer.learning_rate(protocol))
    kernel, bias = (keras.Variable([value], name=name) for value, name in ((1.0, "kernel"), (2.0, "bias")))
    optimizer.build([kernel, bias])
    for _ in range(2):
        optimizer.apply([tf.constant([6.0]), tf.constant([8.0])], [kernel, bias])  # norm 10: halved
    assert float(optimizer.gradient_norm) == pytest.approx(10)
    # steps 0.1 * 3, then 0.9 * that + 0.05 * 3; of the bias 0.1 * 4 * 2, then 0.9 * that + 0.05 * 4 * 2
    assert float(kernel[0]) == pytest.approx(1 - 0.3 - (0.27 + 0.15), rel=1e-5)
    assert float(bias[0]) == pytest.approx(2 - 0.8 - (0.72 + 0.4), rel=1e-5)


def test_a_damaged_image_is_named_or_left_out(root, tmp_path):
    kit = tmp_path / "kit"
    tiny_devkit.write(kit, {"train": 3, "val": 2})
    path = kit / "JPEGImages" / "train_1.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:400] + content[-2:])  # cut within the header; the end is whole
    with pytest.raises(DataError, match=r"train_1\.jpg.*--skip_broken_images") as error:
        opened(kit, "classification", "train")
    assert "\n" not in str(error.value)
    images = opened(kit, "classification", "train", skip_broken_images=True)
    assert images.set.ids == ("train_0", "train_2")
    assert list(images.set.broken) == ["train_1"]
    assert images.read(1).shape[:2] == tuple(images.set.sizes[1])


def test_an_image_that_cannot_be_decoded_is_named_or_listed(tmp_path, capsys):
    """Header and end are intact, the data between them is not."""
    kit = tmp_path / "kit"
    tiny_devkit.write(kit, {"train": 3, "val": 2})
    path = (kit / "JPEGImages" / "train_1.jpg").rename(kit / "JPEGImages" / "train_1.png")
    Image.open(path).save(path, "png")
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(100) + content[middle + 100 :])
    with pytest.raises(DataError, match=r"train_1\.png.*--skip_broken_images"):
        opened(kit, "classification", "train")
    images = open_images(f"folder:{kit}", "train", "classification", skip_broken_images=True)
    assert f"skipped 1 images that cannot be decoded: {path}: " in capsys.readouterr().out
    assert images.set.ids == ("train_0", "train_2")
    assert list(images.set.broken) == ["train_1"]
    assert images.read(1).shape[:2] == tuple(images.set.sizes[1])


def test_an_image_that_is_too_small_is_named(root, models):
    """Layers without a cell in it, after hours of training."""
    images, loaded = opened(root, "segmentation", "val"), lts.load(models / "features")
    sizes = images.set.sizes.copy()
    sizes[1] = loaded.geometry["conv_5"].smallest - 1, 40
    small = dataclasses.replace(images, set=dataclasses.replace(images.set, sizes=sizes))
    with pytest.raises(
        transfer.TransferError, match=f"{images.set.ids[1]} of .* {sizes[1, 0]} x 40 pixels; .* needs at least"
    ):
        segmentation.Segmentation(images, small, SEGMENTATION["small"]).model(loaded, 1, "float32")


def test_test_images_are_not_trained_on(root):
    """Trainval holds val: a figure of it would say nothing."""
    train, test = (opened(root, "classification", split) for split in ("trainval", "val"))
    with pytest.raises(transfer.TransferError, match=r"'trainval' and 'val' of .* share 4 images, such as 'val_0'"):
        voc_run.check(classification.Classification(train, test, CLASSIFICATION["small"]))
    apart = opened(root, "classification", "train")
    voc_run.check(classification.Classification(apart, test, CLASSIFICATION["small"]))


def test_intervals_of_shares_stay_within_0_and_1():
    """Student's interval of three seeds near 100 %; a difference may go below 0."""
    records = [{"value": value} for value in (0.98, 0.99, 0.9)]
    protocol = CLASSIFICATION["small"].replace(seeds=(1, 2, 3))
    mean = voc_run._mean([records], protocol)
    assert mean["interval"][1] == 1.0 > mean["value"] > mean["interval"][0] > 0.8
    assert voc_run._mean([records], protocol, [records[::-1]])["interval"][0] < 0


@pytest.mark.parametrize(
    ("binary", "arguments", "message"),
    [
        (voc_classification, ["--frozen=6"], r"frozen must be in \[0, 5\]"),
        (voc_classification, ["--scales=2,1"], "scales must be 2 numbers in ascending order, each above 0"),
        (voc_classification, ["--seeds=1,-1"], "seeds must be 1 or more different numbers in ascending order, each in"),
        (voc_segmentation, ["--dropout_keep=0"], r"dropout_keep must be in \(0, 1\]"),
        (voc_segmentation, ["--steps=0"], "steps must be at least 1"),
    ],
)
def test_values_that_cannot_be(binary, arguments, message):
    with pytest.raises(flags.IllegalFlagValueError, match=message):
        call(binary, "--model=m", "--dataset=d", "--output=o", *arguments)


def test_a_model_without_a_backbone_is_named_before_images_are_read(models, tmp_path):
    """Selective search takes hours before training would find out."""
    encoder = tmp_path / "encoder"
    shutil.copytree(models / "features", encoder)
    path = encoder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"network": "encoder"}))
    given = [f"--model={models / 'features'}", f"--baseline={encoder}"]
    with pytest.raises(ExportError, match="is an exported encoder"):
        call(voc_classification, *given, "--dataset=folder:nowhere", f"--output={tmp_path / 'out'}")


def test_an_output_that_is_a_file_is_named_before_anything_is_read(tmp_path):
    file = tmp_path / "results.txt"
    file.touch()
    with pytest.raises(OutputError, match="is a file, not a folder"):
        call(voc_classification, "--model=nothing", "--dataset=folder:nowhere", f"--output={file}")


def test_a_protocol_with_other_values_has_no_name():
    protocol = CLASSIFICATION["voc2007"]
    assert protocol.replace(seeds=(1, 2), precision="bfloat16").name == "voc2007"
    assert protocol.replace(steps=10).name == protocol.replace(rule="area").name == "custom"
    assert protocol.replace(rule="area").of_training() == protocol.of_training()  # the same weights
    assert json.loads(json.dumps(protocol.of_training())) == protocol.of_training()
