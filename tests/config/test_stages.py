"""The table of the kinds of training."""

import dataclasses

import pytest

from lts import training
from lts.config import preset
from lts.config.stages import STAGES, section_of
from lts.training import export
from lts.training.train import build_model
from tests.fixtures.runs import FIELDS
from tests.fixtures.spotting import write_run


@pytest.mark.parametrize("stage", STAGES)
def test_entries(stage):
    """Fails if an entry names a class, section or network that does not exist, or its export does not fit the model."""
    config = preset("tiny", **FIELDS)
    kind = STAGES[stage]
    model = build_model(config, stage)
    assert type(model) is kind.model_class()
    assert hasattr(config, kind.section)
    network, name = export._network(training.RunRecord(stage, config))
    assert name == kind.network
    trained = getattr(model, kind.network)
    assert {v.shape for v in network.variables} == {v.shape for v in trained.variables}
    assert kind.adversarial == hasattr(model, "corruption")


def test_other_trainings():
    """Fails if a training of `experiments` has no schedule."""
    assert section_of("voc_classification") == "gan_training"
    assert section_of("autoencoder") == "autoencoder_training"


def test_a_run_that_is_not_exported(tmp_path):
    """Fails if the run of an evaluation is no one-line error."""
    workdir = write_run(tmp_path / "run", "supervised")
    record = training.read_run_config(workdir)
    training.run_dir.write_run_config(workdir, dataclasses.replace(record, stage="linear_probe"))
    with pytest.raises(training.TrainingError, match="a run of stage 'linear_probe' cannot be exported"):
        training.export_run(workdir, tmp_path / "features")
