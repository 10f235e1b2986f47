"""Fixtures over every golden file in the folder LTS_GOLDEN; a module's passes run once per file."""

import json
import os

import pytest

from tests.golden import recipe

FILES = sorted(path for path in recipe.FOLDER.glob("golden_*.npz") if not path.name.startswith("golden_adv_"))
ADVERSARIAL = sorted(recipe.FOLDER.glob("golden_adv_*.npz"))


def _file_fixture(files):
    missing = pytest.mark.skip(reason=f"no golden files: LTS_GOLDEN is {recipe.FOLDER}")
    params = files or [pytest.param(None, marks=missing)]

    @pytest.fixture(scope="module", params=params, ids=[path.stem for path in files] or ["none"])
    def fixture(request):
        return recipe.Golden(request.param)

    return fixture


golden = _file_fixture(FILES)  # `recipe.Golden` of one golden_*.npz
golden_adv = _file_fixture(ADVERSARIAL)  # `recipe.Golden` of one golden_adv_*.npz


@pytest.fixture(scope="session")
def gan():
    """The release's full-size stage 2, built once for the session; users load the recipe into `variables(gan)`."""
    from lts.config import preset
    from lts.models.gan import DamageRepairGAN

    model = DamageRepairGAN(preset("release"))
    model.build((None, 96, 96, 3))
    return model


def pytest_sessionfinish(session):
    """Writes every comparison (what, seen, allowed) to the file LTS_GOLDEN_REPORT, when it is set."""
    if "LTS_GOLDEN_REPORT" in os.environ:
        with open(os.environ["LTS_GOLDEN_REPORT"], "w") as report:
            json.dump(recipe.SEEN, report, indent=1)
