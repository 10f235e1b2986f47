"""Two evaluations in one output folder."""

import pytest

from experiments import (
    ablate,
    compare,
    few_shot,
    finetune,
    knn_probe,
    linear_probe,
    quickstart,
    supervised,
    voc_classification,
    voc_segmentation,
)
from lts.utils import outputs
from lts.utils.files import OutputError
from tests.fixtures.binaries import call

PROBES = (linear_probe, knn_probe, few_shot, finetune, supervised)


@pytest.mark.usefixtures("stand_in_world")
@pytest.mark.parametrize("program", [*PROBES, voc_classification, voc_segmentation, ablate, compare, quickstart])
def test_a_second_evaluation_is_refused(program, tmp_path):
    """Fails if two processes write results, caches and trainings into one folder."""
    given = {"--dataset": "synthetic"}
    if program in (ablate, compare):
        given["--preset"] = "tiny"
        if program is compare:
            given["--budget_minutes"] = "1"
    elif program is quickstart:
        given = {}
    else:
        given["--model"] = "runs/features"
    arguments = [f"{name}={value}" for name, value in given.items()]
    with outputs.locked(tmp_path), pytest.raises(OutputError, match=r"output is in use by process \d+"):
        call(program, f"--output={tmp_path}", *arguments)
    assert not list(tmp_path.iterdir())
