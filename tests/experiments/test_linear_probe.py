"""The program `linear_probe` on stand-ins: files, resume, projector, errors."""

import numpy as np
import pytest

from experiments import linear_probe
from experiments.probing import projector
from experiments.probing import run as probe_run
from experiments.probing.cache import ResultCache
from experiments.probing.linear import LinearProbe
from experiments.probing.probe import ProbeError
from experiments.reporting import results as result_files
from lts.utils.files import OutputError
from tests.fixtures import probe_binaries, probing


@pytest.fixture
def world(stand_in_world):
    """Models and sources that tests change."""
    return stand_in_world


def run(output, *arguments):
    """Run the program on the stand-ins."""
    return probe_binaries.run_stand_ins(linear_probe, output, *arguments)


def test_writes_json_table_and_plot(world, tmp_path, capsys):
    """Fails if figures are not those of the records, or the printed summary does not show them in 80 columns."""
    results = run(tmp_path, "--baseline=runs/a,runs/b")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["lock", "results.json", "results.md", "results.png", "tensorboard"]
    assert results["kind"] == "linear_probe"
    assert results["protocol"]["name"] == "ridge"
    assert results["layers"] == ["conv_1", "conv_2"]
    assert results["dataset"]["train_images"] == 60
    assert results["dataset"]["test_images"] == 30
    assert [model["path"] for model in results["baselines"]] == ["runs/a", "runs/b"]
    printed = capsys.readouterr().out
    for layer in results["layers"]:
        record = results["model"]["layers"][layer]
        accuracies = [model["layers"][layer]["accuracy"] for model in results["baselines"]]
        mean = results["baseline_mean"][layer]["accuracy"]
        assert mean == pytest.approx(np.mean(accuracies))
        difference = results["difference"][layer]
        assert difference["accuracy"] == pytest.approx(record["accuracy"] - mean)
        assert difference["interval"][0] <= difference["accuracy"] <= difference["interval"][1]
        (line,) = [line for line in probe_run.summary(results).splitlines() if line.startswith(layer)]
        assert f" {100 * record['accuracy']:.1f} [" in line
        assert f" {100 * difference['accuracy']:+.1f} [" in line
        assert line in printed
    assert max(len(line) for line in printed.splitlines() if str(tmp_path) not in line) <= 80
    assert results["model"]["layers"]["conv_1"]["accuracy"] > 0.6
    confusion = [[int(count) for count in row.split()] for row in results["model"]["layers"]["conv_1"]["confusion"]]
    assert np.sum(confusion, axis=1).tolist() == [10, 10, 10]  # of each true class
    assert np.trace(confusion) / 30 == pytest.approx(results["model"]["layers"]["conv_1"]["accuracy"])
    table = (tmp_path / "results.md").read_text()
    assert "| runs/a (random) |" in table
    assert "| mean of 2 random |" in table
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_results_do_not_depend_on_the_batch_size(world, tmp_path):
    """Fails if two runs of the same command differ."""
    first = run(tmp_path / "1", "--projector_images=0")
    second = run(tmp_path / "2", "--projector_images=0", "--batch_size=60")
    assert "difference" not in first
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert not (tmp_path / "1" / "tensorboard").exists()


def test_a_stopped_run_resumes(world, tmp_path, monkeypatch):
    """Fails if finished layers are computed again, or the results differ from an uninterrupted run."""
    probe_binaries.check_resumes(linear_probe, LinearProbe, world, tmp_path, monkeypatch)
    assert len((tmp_path / "twice" / "tensorboard" / "metadata.tsv").read_text().splitlines()) == 30


def test_a_run_stopped_in_the_projector_resumes(world, tmp_path, monkeypatch):
    """Fails if the cache is removed before everything is written."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(projector, "visualize_embeddings", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["lock", "partial.json", "results.json", "results.md", "results.png"]
    before = (tmp_path / "results.json").read_text()
    run(tmp_path)
    assert (tmp_path / "results.json").read_text() == before
    assert (tmp_path / "tensorboard" / "projector_config.pbtxt").exists()
    assert not (tmp_path / "partial.json").exists()


def test_the_projector_shows_the_deepest_layer_of_the_model(world, tmp_path):
    """Fails if points come from the first layer, the last of --layers, or a baseline."""
    run(tmp_path, "--baseline=runs/a", "--layers=conv_2,conv_1", "--projector_images=9")
    model = world["models"]["runs/features"]
    test = world["sources"]["test"]
    chosen = projector.choose(test.labels, 9)
    expected = model(test.images[chosen])["conv_2"].numpy().mean(axis=(1, 2))
    points = np.loadtxt(tmp_path / "tensorboard" / "features.tsv")
    np.testing.assert_allclose(points, expected, rtol=1e-5)


def test_cached_results_belong_to_a_protocol_and_a_model(world, tmp_path):
    """Fails if a result of another protocol or model is taken from the cache."""
    model = world["models"]["runs/features"]
    first = ResultCache(tmp_path, {"seed": 1})
    second = ResultCache(tmp_path, {"seed": 2})
    first.put(model, "conv_1", {"accuracy": 1.0})
    assert ResultCache(tmp_path, {"seed": 1}).get(model, "conv_1") == {"accuracy": 1.0}
    assert second.get(model, "conv_1") is None
    assert first.get(world["models"]["runs/a"], "conv_1") is None


def test_a_changed_cache_counts_as_empty(world, tmp_path):
    """Fails if a changed file stops a probe, or gives it figures that were not measured."""
    model = world["models"]["runs/features"]
    (tmp_path / "partial.json").write_text('{"results": {"x": 5}, "digest": ""}')
    cache = ResultCache(tmp_path, {"seed": 1})
    assert cache.get(model, "conv_1") is None
    cache.put(model, "conv_1", {"accuracy": 1.0})
    path = tmp_path / "partial.json"
    path.write_text(path.read_text().replace("1.0", "0.9"))
    assert ResultCache(tmp_path, {"seed": 1}).get(model, "conv_1") is None


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"results": []}', b"\xff"])
def test_a_file_of_the_user_in_place_of_the_cache_stays(world, tmp_path, content):
    """Fails if a probe replaces partial.json of another program, and removes it at the end."""
    (tmp_path / "partial.json").write_bytes(content)
    with pytest.raises(OutputError, match=r"partial\.json holds no results of a stopped run"):
        result_files.check_output(tmp_path)
    with pytest.raises(OutputError, match=r"partial\.json holds no results of a stopped run"):
        run(tmp_path)
    assert (tmp_path / "partial.json").read_bytes() == content


def _other_classes(sources):
    sources["test"].class_names = ("blue", "green", "violet")


def _with_common_images(sources):
    """Give the last training image and the first test image one name."""
    sources["train"].names = tuple(f"{number}.png" for number in range(10))
    sources["test"].names = tuple(f"{number}.png" for number in range(9, 20))


def _with_one_class(sources):
    """Give all images one class: every classifier would be right."""
    for source in sources.values():
        source.labels = source.labels * 0
        source.class_names = ("red",)


def _class_without_test_images(sources):
    sources["test"] = probing.ImageDataset("test", sources["test"].images[:20], sources["test"].labels[:20])


def _unchanged(sources):
    pass


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (probing.without_labels, (), "training images must have labels"),
        (_other_classes, (), "only in one set: red, violet"),
        (
            _with_common_images,
            (),
            "must differ: 1 are in both, such as 9.png. Received: 'train' and 'test' of stand-in",
        ),
        (_with_one_class, (), "at least two classes. Received: red in stand-in"),
        (_class_without_test_images, (), "at least 1 test image. Received: 0 of class 'red'"),
        (_unchanged, ("--layers=conv_1,conv_9",), "layers of runs/features are conv_1, conv_2. Received: 'conv_9'"),
    ],
)
def test_errors_of_models_and_images_are_one_line(world, tmp_path, change, arguments, message):
    """Fails if wrong inputs are found late, or reported in several lines."""
    change(world["sources"])
    with pytest.raises(ProbeError, match=message) as error:
        run(tmp_path, *arguments)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--dataset=synthetic"], 2, "--model"),
        (["--model=x", "--dataset=synthetic", "--pool=median"], 2, "median"),
        (["--model=x", "--dataset=synthetic", "--projector_images=-1"], 2, "projector_images"),
        (["--model=x", "--dataset=synthetic", "--epochs=3"], 2, "--epochs does not apply to --protocol=ridge"),
        (["--model=nothing/here", "--dataset=synthetic"], 1, "nothing/here"),
    ],
)
def test_errors_of_flags(arguments, status, message):
    """Fails if a wrong flag is accepted, or its error does not name it."""
    probe_binaries.check_error(linear_probe, arguments, status, message)


def test_an_error_is_one_line_of_the_program():
    """Fails if a wrong flag prints a traceback."""
    done = probe_binaries.process("linear_probe", "--model=x", "--dataset=synthetic", "--output=nowhere", "--epochs=3")
    assert done.returncode == 2
    assert done.stderr == "linear_probe: --epochs does not apply to --protocol=ridge\n"
    assert done.stdout == ""
