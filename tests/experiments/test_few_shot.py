"""Draws of few labels; the interval over draws; the binary on stand-ins and on a real tiny export."""

import json

import numpy as np
import pytest

from experiments import few_shot
from experiments.probing import few_shot as few_shot_draws
from experiments.probing import linear
from experiments.probing.features import ProbeError
from experiments.probing.protocols import FewShotProtocol
from tests.fixtures import probe_binaries, probing

BINARY = "few_shot"


@pytest.mark.parametrize(
    ("share", "expected"), [(1, [2, 2, 2]), (5, [10, 5, 2]), (10, [20, 10, 2]), (99, [198, 99, 10])]
)
def test_a_draw_takes_its_share_of_each_class_and_at_least_two(share, expected):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [200, 100, 10]))
    rows = few_shot_draws.draw(labels, share, seed=1, number=0)
    assert np.bincount(labels[rows]).tolist() == expected
    assert (np.diff(rows) > 0).all()


def test_draws_differ_by_number_seed_and_share_and_come_again():
    labels = np.arange(1000) % 10
    same = [few_shot_draws.draw(labels, 5, 1, 0).tolist() for _ in range(2)]
    others = [few_shot_draws.draw(labels, *which).tolist() for which in ((5, 1, 1), (5, 2, 0), (6, 1, 0))]
    assert same[0] == same[1]
    assert same[0] not in others


def test_test_labels_decide_nothing():
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    train, test = (generator.normal(size=(40, 30)) + 0.3 * labels[:, None] for _ in range(2))
    right, wrong = (
        few_shot_draws.few_shot_probe(train, labels, test, truth, FewShotProtocol()) for truth in (labels, 1 - labels)
    )
    assert right.regularisation == wrong.regularisation
    np.testing.assert_array_equal(right.correct, ~wrong.correct)


def test_more_labels_help():
    generator = np.random.default_rng(0)
    centres, labels = generator.normal(size=(4, 50)), np.arange(400) % 4
    train, test = (0.25 * centres[labels] + generator.normal(size=(400, 50)) for _ in range(2))
    records = few_shot_draws.measure_shares(train, labels, test, labels, FewShotProtocol(shares=(2.0, 10.0, 60.0)))
    assert list(records) == ["2 %", "10 %", "60 %"]
    assert [record["images"] for record in records.values()] == [8, 40, 240]
    accuracies = [record["accuracy"] for record in records.values()]
    assert accuracies == sorted(accuracies)
    assert accuracies[2] > accuracies[0] + 0.1


def test_the_interval_over_draws_covers_the_truth_about_95_times_of_100():
    generator = np.random.default_rng(1)
    intervals = [linear.draws_interval(generator.normal(0.6, 0.03, 5), FewShotProtocol()) for _ in range(1000)]
    assert 0.93 <= np.mean([low <= 0.6 <= high for low, high in intervals]) <= 0.97


def test_results_of_the_binary(stand_in_world, tmp_path):
    results = probe_binaries.run(few_shot, tmp_path, "--baseline=runs/a,runs/b", "--shares=50,20", "--draws=3")
    assert results["protocol"]["shares"] == [20, 50]
    for layer in ("conv_1", "conv_2"):
        records = [model["layers"][layer]["50 %"] for model in (results["model"], *results["baselines"])]
        mine, *others = (np.array(record["accuracies"]) for record in records)
        assert mine.shape == (3,)
        assert records[0]["accuracy"] == pytest.approx(mine.mean())
        assert records[0]["deviation"] == pytest.approx(mine.std(ddof=1))
        paired = mine - np.mean(others, axis=0)
        difference = results["difference"][layer]["50 %"]
        assert difference["accuracy"] == pytest.approx(paired.mean())
        assert difference["interval"] == pytest.approx(linear.draws_interval(paired, FewShotProtocol()))
        assert results["baseline_mean"][layer]["50 %"]["accuracy"] == pytest.approx(np.mean(others))
    table = (tmp_path / "results.md").read_text()
    assert table.count("| accuracy, % | 20 % | 50 % |") == 2
    assert "**conv_2**" in table
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_stopped_run_goes_on(stand_in_world, tmp_path, monkeypatch):
    probe_binaries.check_goes_on(few_shot, few_shot_draws, "measure_shares", stand_in_world, tmp_path, monkeypatch)


def test_a_class_with_one_image_is_one_line(stand_in_world, tmp_path):
    train = stand_in_world["sources"]["train"]
    stand_in_world["sources"]["train"] = probing.ImageDataset("train", train.images[:41], train.labels[:41])
    with pytest.raises(ProbeError, match="class 'red' has one training image"):
        probe_binaries.run(few_shot, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--shares=0,5"], 2, "shares must be"),
        (["--shares=100"], 2, "shares must be"),
        (["--shares=nan"], 2, "shares must be"),
        (["--draws=1"], 2, "draws"),
        ([], 1, "nothing/here"),
    ],
)
def test_errors_of_the_command_are_one_line(arguments, status, message):
    probe_binaries.check_complaint(BINARY, "nothing/here", arguments, status, message)


def test_a_real_export(tiny_export, tmp_path):
    flags = [f"--output={tmp_path}", "--layers=conv_2", "--shares=20", "--draws=2", "--classifier=logistic"]
    output = probe_binaries.process(BINARY, tiny_export, *flags)
    assert output.returncode == 0, output.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["model"]["layers"]["conv_2"]["20 %"]["images"] == 20
    assert (tmp_path / "results.md").read_text() in output.stdout
