"""Benchmarks write results that the report can read."""

import pytest
import tensorflow as tf
from absl import flags

from experiments import benchmark_extraction, benchmark_step
from experiments.reporting import results as result_files
from experiments.reporting import speed, tables
from tests.fixtures.binaries import call
from tests.fixtures.exports import noisy_export


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
    assert benchmark_step.layer_gflop(graph) == pytest.approx(expected / 1e9)


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
