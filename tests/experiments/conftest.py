"""Stand-ins for models and data, and a real export with random weights."""

import pytest

from experiments.probing import flags as probe_flags
from lts import data
from lts.export import saved_model
from tests.fixtures import probing
from tests.fixtures.exports import small_discriminator


@pytest.fixture
def stand_in_world(monkeypatch):
    """Loaded models by path and data sets by role, in place of lts.export.saved_model and lts.data."""
    models = {
        "runs/features": probing.Model("runs/features"),
        "runs/a": probing.Model("runs/a", 1, "random"),
        "runs/b": probing.Model("runs/b", 2, "random"),
    }
    sources = {"train": probing.source("train"), "test": probing.source("test", 10)}
    monkeypatch.setattr(saved_model, "load", models.__getitem__)
    monkeypatch.setattr(probe_flags, "check_inputs", lambda *_, **__: None)  # the models are in no folder
    monkeypatch.setattr(data, "open_source", lambda dataset, split, role, **_: sources[role], raising=False)
    monkeypatch.setattr(data, "test_batches", probing.batches, raising=False)
    return {"models": models, "sources": sources}


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory):
    """SavedModel with random weights, 64 pixels per side."""
    folder = tmp_path_factory.mktemp("export") / "features"
    discriminator, description = small_discriminator("batch_norm", image_size="64")
    saved_model.export(discriminator, folder, description)
    return folder
