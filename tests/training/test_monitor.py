"""What a run writes for TensorBoard, read back from its event files."""

import io
import json
import os
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lts.config import SECTIONS, fields_of, preset
from lts.networks.variables import variables_by_path
from lts.training.monitor import HISTOGRAM_ENTRIES, Monitor, histogram_sample, progress_text, scalar_tag
from lts.training.run_record import RunRecord
from lts.training.task import Task, checkpoint_items
from lts.visualization.montage import filter_montage
from tests.fixtures.models import autoencoder, gan, images

RECORD = RunRecord("gan", preset("small"), dataset="synthetic", split="train")


@pytest.fixture
def monitor(tmp_path):
    """The monitor of a new run."""
    monitor = Monitor(tmp_path, "gan", 0, 100, 32)
    yield monitor
    monitor.close()


def events(monitor, raw: bool = False):
    """Return what was written: TensorBoard's accumulator, or the events themselves."""
    monitor.flush()
    folder = monitor.workdir / "tensorboard"
    if raw:
        paths = sorted(folder.glob("events.*"))
        return [event for path in paths for event in tf.compat.v1.train.summary_iterator(str(path))]
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def tensors(monitor, tag: str) -> dict:
    """Return step to tensor, each step once."""
    written = events(monitor).Tensors(tag)
    assert len({event.step for event in written}) == len(written)
    return {event.step: tf.make_ndarray(event.tensor_proto) for event in written}


def lines(monitor) -> list:
    """Return the lines of metrics.jsonl."""
    return [json.loads(line) for line in monitor.metrics_path.read_text().splitlines()]


def test_every_scalar_of_a_line(monitor):
    """Fails if a scalar is missing, has another step's value, or another name in metrics.jsonl."""
    names = [*gan().METRICS, *autoencoder().METRICS, "learning_rate", "repair_learning_rate"]
    written = {step: {name: step + index / 64 for index, name in enumerate(names)} for step in (20, 40)}
    for step, values in written.items():
        monitor.log(step, values)
    tags = events(monitor).Tags()["tensors"]
    assert len(tags) == len(set(names)) + 1
    for line in lines(monitor):
        assert line.keys() == {"step", *names, "images_per_second"}
        step = line.pop("step")
        for name, value in line.items():
            assert value == written[step].get(name, value)
            assert tensors(monitor, scalar_tag(name))[step] == np.float32(value)


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("mask", "loss/mask"),
        ("loss", "loss/loss"),
        ("accuracy_mask", "accuracy/accuracy_mask"),
        ("repair_gradient_norm", "gradient_norm/repair_gradient_norm"),
        ("repair_learning_rate", "learning_rate/repair_learning_rate"),
        ("probe_knn_accuracy", "probe/probe_knn_accuracy"),
    ],
)
def test_groups_of_scalars(name, tag):
    """Fails if TensorBoard gets a section for every single curve."""
    assert scalar_tag(name) == tag


@pytest.mark.parametrize("model", [gan, autoencoder])
def test_lines_fit_a_terminal(model, tmp_path, capsys):
    """Fails if a line is wider than 80 columns, or its most important values are cut off."""
    monitor = Monitor(tmp_path, model().name, 0, 100_000, 32)
    probe = {"probe_knn_accuracy": 0.4321, "probe_rank": 31.24, "probe_alignment": 0.31, "probe_uniformity": -1.02}
    monitor.log(90_000, {name: 0.123456 for name in (*model().METRICS, "learning_rate")} | probe)
    monitor.close()
    line, probe_line = capsys.readouterr().out.splitlines()
    assert max(len(line), len(probe_line)) <= 80
    time_of_day = r"\d\d:\d\d:\d\d "
    assert re.match(rf"{time_of_day}{model().name} step 90000/100000 kNN 43.2% \| rank 31.2 \| align", probe_line)
    first = "accuracy real 12% repaired 12% mask 12%" if model is gan else "loss 0.123 | "
    assert f" {first}" in line
    assert re.match(rf"{time_of_day}{model().name} step 90000/100000 left ", line)


def test_the_bar_of_a_terminal_fits(tmp_path, monkeypatch):
    """Fails if the bar of 80 columns shows no accuracies."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monitor = Monitor(tmp_path, "gan", 0, 9000, 32)
    monitor.advance(50)
    monitor.log(50, {name: 0.123456 for name in gan().METRICS})
    monitor.close()
    shown = [line.strip() for line in re.split(r"[\r\n]", screen.getvalue())]
    assert max(map(len, shown)) <= 80
    assert any("accuracy real 12% repaired 12% mask 12%" in line for line in shown)


@pytest.mark.parametrize(("features", "title"), [(None, "supervised"), ("0123456789abcdef", "finetune")])
def test_title_of_a_classifier(features, title):
    """Fails if fine-tuning an export is logged as supervised training from scratch."""
    record = RunRecord("supervised", preset("tiny"), details={"features": features})
    assert Task(record, "gan_training", 1, build=None, batches=None, samples=None).title == title


def test_progress_text():
    """Fails if losses come before accuracies, or part of a value is shown."""
    values = {"real_or_fake": 0.5, "accuracy": 0.98765, "images_per_second": 290.4}
    assert progress_text(values, 80) == "accuracy 99% | 290 images/s | real_or_fake 0.5"
    assert progress_text(values, 30) == "accuracy 99% | 290 images/s"
    assert progress_text(values, 5) == ""


def test_histograms_count_every_entry(monitor):
    """Fails if entries are lost or the range is another."""
    values = np.random.RandomState(0).standard_normal((3, 3, 8, 16)).astype(np.float32)
    monitor.histograms(7, {"weights/a": values})
    buckets = tensors(monitor, "weights/a")[7]  # [30, (left, right, count)]
    assert buckets[:, 2].sum() == values.size
    np.testing.assert_allclose([buckets[0, 0], buckets[-1, 1]], [values.min(), values.max()], rtol=1e-6)
    inside = [np.sum((values >= left) & (values < right)) for left, right, _ in buckets]
    np.testing.assert_allclose(buckets[:, 2], inside, atol=1)


def test_large_tensors_are_sampled():
    """Fails if a large tensor is written completely, or its sample misses channels or an outlier."""
    channels = 512
    values = np.tile(np.arange(channels, dtype=np.float32), 2**21 // channels)
    values[1234567] = -1e6
    sample = histogram_sample(tf.reshape(values, [4, 4, -1, channels])).numpy()
    assert HISTOGRAM_ENTRIES / 2 < sample.size <= HISTOGRAM_ENTRIES + 2
    assert (sample.min(), sample.max()) == (-1e6, channels - 1)
    assert set(sample) >= set(range(channels))
    np.testing.assert_allclose(np.median(sample), np.median(values), rtol=0.01)
    small = np.arange(HISTOGRAM_ENTRIES, dtype=np.float32)
    np.testing.assert_array_equal(histogram_sample(small), small)


def test_filters_are_the_release_s_montage(monitor):
    """Fails if filters are scaled together, reordered, or blurred by the enlargement."""
    kernel = np.random.RandomState(0).standard_normal((5, 5, 3, 12)).astype(np.float32)
    monitor.filters(3, kernel)
    width, height, png = tensors(monitor, "pictures/first kernels")[3]
    picture = tf.io.decode_png(png).numpy()
    expected = filter_montage(kernel)
    factor = picture.shape[0] // expected.shape[0]
    assert (int(height), int(width)) == picture.shape[:2]
    assert factor > 1
    np.testing.assert_array_equal(picture, np.kron(expected, np.ones((factor, factor, 1), np.uint8)))


def test_pictures(monitor):
    """Fails if columns are exchanged, or TensorBoard shows another strip than the folder."""
    columns = {"image": images(2), "mask": images(2)[..., :1]}
    monitor.pictures(3, columns)
    *_, png = tensors(monitor, "pictures/image | mask")[3]
    assert png == (monitor.workdir / "pictures" / "latest.png").read_bytes()
    picture = tf.io.decode_png(png).numpy()
    assert picture.shape == (2 * 34 - 2, 2 * 34 - 2, 3)
    assert (picture[32:34] == 255).all()
    np.testing.assert_allclose(picture[34:66, :32] / 127.5 - 1, columns["image"][1], atol=1 / 127)


def test_names_that_are_no_utf8(monitor):
    """Fails if a folder from an old disk stops the training at its start."""
    monitor.configuration(
        RunRecord("gan", preset("tiny"), dataset="folder:K\udcf6pfe", split="h\udcf6f"), "gan_training"
    )
    monitor.close()
    (events,) = (monitor.workdir / "tensorboard").glob("events*")
    assert b"folder:K\\xf6pfe" in events.read_bytes()


@pytest.mark.parametrize("stage", ["autoencoder_training", "gan_training"])
def test_hparams_hold_every_field(monitor, stage):
    """Fails if a field is missing in the table of runs, or two runs share a row."""
    config = preset("small", keep_probability=0.7, seed=5)
    monitor.configuration(RunRecord("gan", config, dataset="folder:photos", split="train"), stage)
    contents = []
    for event in events(monitor, raw=True):
        plugins = [value.metadata.plugin_data for value in event.summary.value]
        contents += [plugin.content for plugin in plugins if plugin.plugin_name == "hparams"]
    [content] = contents
    info = HParamsPluginData.FromString(content).session_start_info
    assert info.group_name == str(monitor.workdir)
    held = {name: getattr(value, value.WhichOneof("kind")) for name, value in info.hparams.items()}
    expected = {"preset": "small", "stage": stage, "dataset": "folder:photos", "split": "train"}
    for section, field in fields_of(*SECTIONS, stage):
        value = getattr(getattr(config, section), field.name)
        expected[field.name] = ",".join(map(str, value)) if isinstance(value, tuple) else value
    assert held == expected
    text = str(tensors(monitor, "configuration")[0])
    for name, value in expected.items():
        assert f"| {name} | {value} | ".replace("|  |", "| |") in text or f"{name}: {value}" in text


@pytest.mark.parametrize(
    ("model", "nodes"),
    [
        (gan, {"data", "draw", "encoder", "decoder", "damaged", "damage", "repair", "discriminator", "masks"}),
        (autoencoder, {"images", "encoder", "decoder"}),
    ],
    ids=["gan", "autoencoder"],
)
def test_the_graph_has_a_node_for_each_network(monitor, model, nodes):
    """Fails if the graph shows loose operations between the networks, or edges to missing nodes."""
    traced = tf.function(model().pictures).get_concrete_function(tf.TensorSpec([2, 32, 32, 3]))
    monitor.graph(traced.graph)
    [graph] = [tf.compat.v1.GraphDef.FromString(e.graph_def) for e in events(monitor, raw=True) if e.graph_def]
    names = {node.name for node in graph.node}
    assert {name.split("/")[0].removesuffix("_1") for name in names} == nodes
    assert {name.split(":")[0] for node in graph.node for name in node.input} <= names
    assert any("/conv_1" in name for name in names)


def test_a_resumed_run_has_no_step_twice(tmp_path):
    """Fails if events after the checkpoint stay, those before it go, or a truncated end stops the run."""
    first = Monitor(tmp_path, "gan", 0, 100, 32)
    first.configuration(RECORD, "gan_training")
    for step in (20, 40, 60):
        first.log(step, {"mask": float(step)})
        first.histograms(step, {"weights/a": np.ones(step)})
    first.close()
    [path] = (tmp_path / "tensorboard").glob("events.*")
    os.truncate(path, path.stat().st_size - 5)
    with first.metrics_path.open("a") as file:
        file.write('{"step": 8')
    second = Monitor(tmp_path, "gan", 40, 100, 32)
    assert [line["step"] for line in lines(second)] == [20, 40]
    assert {e.step for e in events(second, raw=True)} == {0, 20, 40}
    for step in (60, 80):
        second.log(step, {"mask": -float(step)})
    assert [line["mask"] for line in lines(second)] == [20, 40, -60, -80]
    assert tensors(second, "loss/mask") == {20: 20, 40: 40, 60: -60, 80: -80}
    assert {step: t[:, 2].sum() for step, t in tensors(second, "weights/a").items()} == {20: 20, 40: 40}
    assert tensors(second, "configuration").keys() == {0}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]
    second.close()


def test_a_run_without_a_checkpoint_begins_again(tmp_path):
    """Fails if the curves of the first attempt stay."""
    for value in (1.0, 2.0):
        monitor = Monitor(tmp_path, "gan", 0, 100, 32)
        monitor.configuration(RECORD, "gan_training")
        monitor.log(20, {"mask": value})
        monitor.close()
    assert tensors(monitor, "loss/mask") == {20: 2.0}
    assert tensors(monitor, "configuration").keys() == {0}
    assert [line["mask"] for line in lines(monitor)] == [2.0]


@pytest.mark.parametrize("step", [0, 20])
def test_copies_of_event_files_are_left_alone(tmp_path, step):
    """Fails if a resumed run removes or rewrites what a user put next to its event files."""
    first = Monitor(tmp_path, "gan", 0, 100, 32)
    first.log(40, {"mask": 1.0})
    first.close()
    [path] = (tmp_path / "tensorboard").iterdir()
    copies = [path.with_name(f"{path.name}{ending}") for ending in (".bak", " copy")]
    for copy in copies:
        copy.write_bytes(path.read_bytes())
    before = path.read_bytes()
    Monitor(tmp_path, "gan", step, 100, 32).close()
    assert [copy.read_bytes() == before for copy in copies] == [True, True]
    assert not path.exists() or path.read_bytes() != before


@pytest.mark.parametrize(
    ("build", "graph"),
    [(gan, True), *(pytest.param(autoencoder, graph, marks=pytest.mark.slow) for graph in (False, True))],
)
def test_histograms_leave_the_model_as_it_was(build, graph):
    """Fails if histograms move statistics or weights, or a variable has no histogram."""
    model = build(ema_decay=0.9)
    model.train_step(images())
    items = {name: variables_by_path(item) for name, item in checkpoint_items(model).items()}
    before = {name: {path: v.numpy() for path, v in held.items()} for name, held in items.items()}
    histograms = (tf.function(model.histograms) if graph else model.histograms)(images())
    for name, held in items.items():
        for path, variable in held.items():
            np.testing.assert_array_equal(variable.numpy(), before[name][path], err_msg=f"{name}/{path}")
    paths = {variable.path.removeprefix(f"{model.name}/") for variable in model.trainable_variables}
    activations = {name for name in histograms if name.startswith("activations/")}
    assert len(activations) == len(histograms) - 2 * len(paths) > 0
    for variable in model.trainable_variables:
        path = variable.path.removeprefix(f"{model.name}/")
        np.testing.assert_array_equal(histograms[f"weights/{path}"], variable.numpy())
        assert histograms[f"gradients/{path}"].shape == variable.shape
    assert all(np.isfinite(value).all() for value in histograms.values())
