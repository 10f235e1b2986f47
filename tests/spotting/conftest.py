"""Run folders of untrained networks."""

import types

import pytest

from lts.training import export
from tests.fixtures.spotting import write_photos, write_run


@pytest.fixture(scope="package")
def world(tmp_path_factory) -> types.SimpleNamespace:
    """`gan`, `autoencoder`: workdirs; `features`: the export of `gan`; `photos`: twelve in sub-folders."""
    # Untrained networks suffice: spotting does not depend on how well they do.
    root = tmp_path_factory.mktemp("world")
    gan = write_run(root / "gan", "gan")
    export.export_run(gan, root / "features")
    return types.SimpleNamespace(
        gan=gan,
        autoencoder=write_run(root / "ae", "autoencoder"),
        features=root / "features",
        photos=write_photos(root / "photos", [f"{'cat' if i % 2 else 'dog'}/{i}.png" for i in range(12)]),
    )
