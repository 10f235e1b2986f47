"""Benchmarks write results that the report can read."""

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from experiments import benchmark_extraction, benchmark_step, compare_steps, profile_step, step_cost
from experiments.pretraining import steps
from experiments.reporting import results as result_files
from experiments.reporting import speed, tables
from tests.fixtures.binaries import call
from tests.fixtures.exports import noisy_export
from tests.fixtures.runs import ROOT


def test_layer_gflop():
    """Fails if a convolution or a matrix product is counted wrongly, or if unused operations count."""

    @tf.function
    def layers(images, kernel, weights):
        tf.nn.conv2d(images, kernel, 1, "VALID")  # nothing depends on it
        features = tf.nn.conv2d(images, kernel, 2, "SAME")  # [2, 4, 4, 5], 3 * 3 * 3 products each
        return tf.reshape(features, [2, 80]) @ weights  # [2, 7], 80 products each

    shapes = ([2, 8, 8, 3], [3, 3, 3, 5], [80, 7])
    graph = layers.get_concrete_function(*[tf.TensorSpec(shape) for shape in shapes]).graph
    expected = 2 * (2 * 4 * 4 * 5) * 27 + 2 * (2 * 7) * 80
    assert steps.layer_gflop(graph) == pytest.approx(expected / 1e9)


def test_step_results_make_a_table(tmp_path, monkeypatch):
    """Fails if the benchmark's JSON lacks a field that the table needs, or if a ratio is of the wrong row."""
    values = flags.FlagValues()
    flags.DEFINE_string("preset", "tiny", "", flag_values=values)
    flags.DEFINE_integer("batch_size", 4, "", flag_values=values)
    flags.DEFINE_integer("rounds", 1, "", flag_values=values)
    values.mark_as_parsed()
    monkeypatch.setattr(benchmark_step, "FLAGS", values)
    clock = iter(range(1000))
    monkeypatch.setattr(benchmark_step.time, "perf_counter", lambda: float(next(clock)))  # each call takes 1 s
    monkeypatch.setattr(benchmark_step, "peak_convolution", lambda precision: (lambda: None, 8.0))
    monkeypatch.setattr(benchmark_step, "training_step", lambda *_: (lambda: None, 2.0))
    speed.write(benchmark_step.measure_steps(), tmp_path)
    results = result_files.load(tmp_path / "results.json")
    assert tables.table([results])[1:4] == [
        ["convolution peak", "float32", "", "", "8", "", "1.00"],
        ["convolution peak", "bfloat16", "", "", "8", "", "1.00"],
        ["autoencoder step", "float32", "4.0", "0.50", "2", "25 %", "1.00"],
    ]


def test_profile_makes_a_table(tmp_path):
    """Fails if an operation counts under another kind, or if the table lacks the time between operations."""
    milliseconds = {
        "gan/conv_1/LeakyRelu:_MklNativeFusedConv2D": 30,
        "gradient_tape/conv_1/Conv2DBackpropFilter:_MklNativeConv2DBackpropFilterWithBias": 20,
        "gan/fc_1/MatMul:_MklMatMul": 5,
        "decoder/MatMul_1:_MklBatchMatMulV2": 4,
        "release_adam_1/sub_3:Sub": 3,
        "release_adam_1/ResourceApplyAdam:ResourceApplyAdam": 7,
        "gan/sub_3:Sub": 1,
        "gan/Cast:Cast": 2,
        "EagerKernelExecute": 99,
        "KernelAndDeviceFunc::Run": 99,
        "EagerLocalExecute: __inference_train_step": 99,
    }
    events = {name: duration / 1000 for name, duration in milliseconds.items()}
    kinds = profile_step.by_kind(events, ("release_adam_1",), 0.1)
    row = {"stage": "gan", "precision": "float32", "seconds": 0.1, "kinds": kinds}
    machine = {"date": "2026-01-01", "hardware": "", "command": ""}
    settings = {"preset": "tiny", "batch_size": 4, "steps": 1}
    speed.write({"kind": "step_profile", **machine, **settings, "rows": [row]}, tmp_path)
    table = dict(tables.table([result_files.load(tmp_path / "results.json")]))
    assert table["convolution"] == "30.0 % (30.0 ms)"
    assert table["convolution, kernel gradient"] == "20.0 % (20.0 ms)"
    assert table["optimizer"] == "10.0 % (10.0 ms)"
    assert table["element-wise and other"] == "1.0 % (1.0 ms)"
    assert table["between operations"] == "28.0 % (28.0 ms)"


def test_comparison_makes_a_table(tmp_path):
    """Fails if a speedup is inverted, or not the median of the rounds."""
    rounds = [((2.0, 4.0), (4.0, 5.0)), ((1.0, 4.0), (3.0, 6.0)), ((2.0, 4.0), (2.0, 7.0))]
    row = compare_steps.row(("tiny", "gan", "float32", 8), rounds)
    machine = {"date": "2026-01-01", "hardware": "", "command": ""}
    results = {"kind": "step_comparison", **machine, "other": "checkout", "other_commit": "abc", "rows": [row]}
    speed.write(results, tmp_path)
    table = tables.table([result_files.load(tmp_path / "results.json")])
    assert table[0][4] == "× the other commit"
    assert table[1] == ["tiny", "gan", "float32", "4.0", "2.00", "1.00 to 3.00", "1.50"]
    assert speed.comparison_table(results | {"other": "release"})[0][4] == "× the release, float32"


@pytest.mark.slow
def test_programs_that_start_processes(tmp_path):
    """Fails if steps of another version or of another size do not run in their processes."""
    call(
        step_cost, "--preset=tiny", "--image_sizes=48", "--batch_sizes=4", "--rounds=1", f"--output={tmp_path / 'cost'}"
    )
    rows = result_files.load(tmp_path / "cost" / "results.json").values["rows"]
    assert [row["stage"] for row in rows] == ["autoencoder", "gan"]
    assert all(0.1 < row["peak_memory_gb"] < 5 for row in rows)
    for number, version in enumerate((f"--checkout={ROOT}", "--xla")):
        output = tmp_path / str(number)
        call(compare_steps, version, "--presets=tiny", "--batch_size=4", "--rounds=1", f"--output={output}")
        rows = result_files.load(output / "results.json").values["rows"]
        assert [row["precision"] for row in rows] == ["float32", "bfloat16"] * 2


def test_bytes_that_a_step_moves():
    """Fails if a tensor of an operation is not counted, a view is, or the smaller of both times is estimated."""

    @tf.function
    def layers(images, kernel):
        return tf.reshape(tf.nn.relu(tf.nn.conv2d(images, kernel, 2, "SAME")), [2, 80])

    graph = layers.get_concrete_function(tf.TensorSpec([2, 8, 8, 3]), tf.TensorSpec([3, 3, 3, 5])).graph
    convolution = 4 * (2 * 8 * 8 * 3 + 3 * 3 * 3 * 5 + 2 * 4 * 4 * 5)
    activation = 4 * 2 * (2 * 4 * 4 * 5)
    assert sum(steps.moved_bytes(op) for op in steps.needed(graph)) == convolution + activation
    operations = 2 * (2 * 4 * 4 * 5) * 27
    assert steps.estimated_seconds(graph, 1.0, 1e9) == pytest.approx(operations + activation / 1e9)
    assert steps.estimated_seconds(graph, 1e12, 1.0) == pytest.approx(convolution + activation)


def test_costs_make_a_table_and_a_plot(tmp_path, monkeypatch):
    """Fails if the results of a count or of measured sizes lack a field of table or plot."""
    monkeypatch.setattr(step_cost, "STAGES", ("autoencoder",))
    sizes = ("--preset=tiny", "--image_sizes=48", "--batch_sizes=4")
    call(step_cost, *sizes, f"--output={tmp_path / 'estimate'}", "--count_only")
    table = tables.table([result_files.load(tmp_path / "estimate" / "results.json")])
    assert [row[:4] for row in table[1:]] == [["autoencoder", name, "48", "4"] for name in step_cost.PRECISIONS]
    rows = []
    for batch_size in (4, 8):
        size = {"stage": "gan", "precision": "float32", "image_size": 48, "batch_size": batch_size}
        rows.append({**size, "images_per_second": 10.0, "peak_memory_gb": 1.5, "gflop_per_image": 0.25})
    machine = {"date": "2026-01-01", "hardware": "", "command": "", "preset": "tiny"}
    speed.write({"kind": "step_cost", **machine, "rows": rows}, tmp_path)
    results = result_files.load(tmp_path / "results.json")
    measured = "10 images/s, 1.5 GB"
    assert tables.table([results])[1] == ["gan", "float32", "48", "0.25", measured, measured]
    axes = speed.cost_plot(results.values).axes
    np.testing.assert_array_equal(axes[0].lines[0].get_xydata(), [[4, 10.0], [8, 10.0]])


@pytest.mark.parametrize(("flag", "layer"), [((), "conv_5"), (("--layer=conv_2",), "conv_2")])
def test_layer_of_the_extraction(flag, layer, tmp_path, monkeypatch):
    """Fails if the benchmark does not start without --layer, or measures another layer."""
    noisy_export(tmp_path / "features")
    measured = []
    monkeypatch.setattr(benchmark_extraction, "measure", lambda model, root, layer, pool: measured.append(layer))
    monkeypatch.setattr(speed, "write", lambda results, output: None)
    images = ("--dataset=folder:photos", f"--output={tmp_path / 'out'}", "--pool=avg")
    call(benchmark_extraction, f"--model={tmp_path / 'features'}", *images, *flag)
    assert measured == [layer]
