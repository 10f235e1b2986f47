"""Draws of few labels, and the program."""

import numpy as np
import pytest

from experiments import few_shot
from experiments.probing import few_shot as few_shot_draws
from experiments.probing.few_shot import FewShotProbe
from experiments.probing.protocols import FewShotProtocol
from lts.utils import statistics
from tests.fixtures import probe_binaries


@pytest.mark.parametrize(
    ("share", "expected"), [(1, [2, 2, 2]), (5, [10, 5, 2]), (10, [20, 10, 2]), (99, [198, 99, 10])]
)
def test_a_draw_takes_its_share_of_each_class_and_at_least_two(share, expected):
    """Fails if a draw has other numbers of images, or is not sorted."""
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [200, 100, 10]))
    rows = few_shot_draws.draw(labels, share, seed=1, number=0)
    assert np.bincount(labels[rows]).tolist() == expected
    assert (np.diff(rows) > 0).all()


def test_draws_are_a_function_of_number_seed_and_share():
    """Fails if models get different images, or two draws the same."""
    labels = np.arange(1000) % 10
    rows = few_shot_draws.draw(labels, 5, 1, 0).tolist()
    assert rows == few_shot_draws.draw(labels, 5, 1, 0).tolist()
    for share, seed, number in ((5, 1, 1), (5, 2, 0), (6, 1, 0)):
        assert rows != few_shot_draws.draw(labels, share, seed, number).tolist()


@pytest.mark.parametrize(("images", "parts"), [([50, 60], 5), ([3, 60], 3)])
def test_cross_validation_holds_out_every_image_once(images, parts):
    """Fails if a small class is missing in a part, or an image is held out twice."""
    labels = np.repeat([0, 1], images)
    splits = few_shot_draws.cross_validation(labels, FewShotProtocol())
    assert len(splits) == parts
    for rows, held_out in splits:
        assert set(labels[rows]) == set(labels[held_out]) == {0, 1}
        assert not set(rows) & set(held_out)
    assert np.sort(np.concatenate([held_out for _, held_out in splits])).tolist() == list(range(len(labels)))


def test_more_labels_help():
    """Fails if shares are mixed up, or a draw does not use its images."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(4, 50))
    labels = np.arange(400) % 4
    train = 0.25 * centres[labels] + generator.normal(size=(400, 50))
    test = 0.25 * centres[labels] + generator.normal(size=(400, 50))
    protocol = FewShotProtocol(shares=(2.0, 10.0, 60.0))
    probe = FewShotProbe(protocol=protocol, train=None, test=None, output=None)
    records = probe.measure(train, labels, test, labels)
    assert list(records) == ["2 %", "10 %", "60 %"]
    assert [record["images"] for record in records.values()] == [8, 40, 240]
    accuracies = [record["accuracy"] for record in records.values()]
    assert accuracies == sorted(accuracies)
    assert accuracies[2] > accuracies[0] + 0.1


def test_results_of_the_program(stand_in_world, tmp_path, capsys):
    """Fails if records of shares are not means over draws, or differences are not paired."""
    arguments = ("--baseline=runs/a,runs/b", "--shares=50,20", "--draws=3")
    results = probe_binaries.run_stand_ins(few_shot, tmp_path, *arguments)
    assert results["kind"] == "few_shot"
    assert results["protocol"]["shares"] == [20, 50]
    for layer in ("conv_1", "conv_2"):
        record = results["model"]["layers"][layer]["50 %"]
        values = np.array(record["accuracies"])
        baselines = [model["layers"][layer]["50 %"]["accuracies"] for model in results["baselines"]]
        assert values.shape == (3,)
        assert record["accuracy"] == pytest.approx(values.mean())
        assert record["deviation"] == pytest.approx(values.std(ddof=1))
        paired = values - np.mean(baselines, axis=0)
        difference = results["difference"][layer]["50 %"]
        assert difference["accuracy"] == pytest.approx(paired.mean())
        assert difference["interval"] == pytest.approx(statistics.student_interval(paired, 0.95))
        assert results["baseline_mean"][layer]["50 %"]["accuracy"] == pytest.approx(np.mean(baselines))
    table = (tmp_path / "results.md").read_text()
    assert "20 % | 50 % |" in table
    assert "**conv_2**" in table
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert printed.count("conv_2 50 %") == 4  # of three models, and in the summary
    assert max(len(line) for line in printed.splitlines() if str(tmp_path) not in line) <= 80


@pytest.mark.slow
def test_a_stopped_run_resumes(stand_in_world, tmp_path, monkeypatch):
    """Fails if several records of a layer are not kept together."""
    probe_binaries.check_resumes(few_shot, FewShotProbe, stand_in_world, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--shares=0,5", "shares must"),
        ("--shares=100", "shares must"),
        ("--shares=nan", "shares must"),
        ("--draws=1", "draws"),
    ],
)
def test_shares_and_draws_out_of_range_are_refused(argument, message):
    """Fails if a wrong share or a single draw is accepted."""
    probe_binaries.check_error(few_shot, ["--model=x", *probe_binaries.SPLITS, argument], 2, message)
