"""Uploads to a stand-in of the Hugging Face hub, and downloads from it."""

import importlib.util
import json

import pytest

from lts.config import preset
from lts.export import hub as exports_on_hub
from lts.export import model_card
from lts.export.choices import EXPORT, local_folder, read_description
from lts.utils.errors import FormatError
from tests.fixtures.binaries import invoke
from tests.fixtures.hub import serving

constants = pytest.importorskip("huggingface_hub.constants", reason="the extra hub is not installed")
TOKEN = "hf_secret"
FLAGS = ("--repo=me/features", "--license=cc-by-4.0")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A running hub, which the package uses."""
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        exports_on_hub.download.cache_clear()
        yield server
        exports_on_hub.download.cache_clear()


@pytest.fixture
def folder(tmp_path):
    """The files of an export; no test here runs its graph."""
    folder = tmp_path / "features"
    (folder / "variables").mkdir(parents=True)
    description = {"image_size": 48, "test_crop": 0.85, "weights": "trained", "config": preset("tiny").to_dict()}
    (folder / "config.json").write_text(json.dumps(description))
    (folder / "README.md").write_text(model_card.card(description) + "\nmy notes\n")
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    (folder / "notes.txt").write_text("private")
    return folder


def share(folder, *flags):
    """Run the binary."""
    return invoke("lts.bin.share_features", f"--model={folder}", *flags)


def test_upload_and_download(hub, folder, tmp_path):
    """Fails if other files are uploaded or stay, the licence is lost, the token shown, or a change overlooked."""
    done = share(folder, *FLAGS)
    assert (done.returncode, done.stderr) == (0, "")
    uploaded = hub.files["me/features"]
    assert sorted(uploaded) == ["README.md", "config.json", "saved_model.pb", "variables/variables.index"]
    card = uploaded["README.md"].decode()
    assert "license: cc-by-4.0\n" in card.split("---\n")[1]
    assert "not stated" not in card
    assert card.endswith("my notes\n")
    assert "license" not in (folder / "config.json").read_text()  # the folder is not changed

    downloaded = local_folder("hf://me/features")
    assert read_description("hf://me/features")["license"] == "cc-by-4.0"
    assert (downloaded / "variables" / "variables.index").read_bytes() == b"weights"
    commit = done.stdout.split()[-1]
    assert commit == f"hf://me/features@{hub.commit('me/features')}"
    assert local_folder(commit) == downloaded

    # A second upload, with a file less and a file more.
    uploaded["model.tflite"] = b""
    uploaded["picture.png"] = b""
    (folder / "saved_model.pb").write_bytes(b"other graph")
    again = share(folder, *FLAGS, "--private")
    assert again.returncode == 0, again.stderr
    assert "model.tflite" not in uploaded
    assert "picture.png" in uploaded
    assert f"Bearer {TOKEN}" in hub.tokens
    shown = done.stdout + again.stdout + "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert TOKEN not in shown

    # A later version may write files that this one does not know.
    config = json.loads(uploaded["config.json"])
    config["sha256"]["of_a_later_version.bin"] = "0"
    uploaded["config.json"] = json.dumps(config).encode()
    exports_on_hub.download.cache_clear()
    assert read_description("hf://me/features")["license"] == "cc-by-4.0"
    uploaded["saved_model.pb"] = b"exchanged graph"
    exports_on_hub.download.cache_clear()
    with pytest.raises(exports_on_hub.HubError, match=r"saved_model\.pb with another checksum"):
        read_description("hf://me/features")
    hub.files["me/bert"] = {"config.json": b"{}", "model.safetensors": b""}
    with pytest.raises(exports_on_hub.HubError, match="holds no exported model"):
        read_description("hf://me/bert")
    done = share(folder, "--repo=me/bert", "--license=mit")
    assert (done.returncode, "holds another model" in done.stderr, done.stderr.count("\n")) == (1, True, 1)


@pytest.mark.parametrize(
    ("refused", "writing", "message"),
    [
        ({"/api/repos": (401, "")}, True, "does not permit writing there. Log in"),
        ({"/api/models/me/features/commit": (403, "")}, True, "does not permit writing there. Log in"),
        ({"/api/models": (401, "GatedRepo")}, False, "asks its readers to be accepted"),
        ({"/api/models": (401, "RepoNotFound")}, False, "no such repository, or it is private"),
        ({"/api/models": (404, "RevisionNotFound")}, False, "no such revision"),
        ({"/api/models": (418, "")}, False, "the hub answered with status 418"),
    ],
)
def test_refusals_are_one_line(hub, folder, refused, writing, message):
    """Fails if a refusal of the hub is no clear line, or shows the token."""
    hub.files["me/features"] = {}
    hub.refused = refused
    model = folder if writing else "hf://me/features"
    program = "lts.bin.share_features" if writing else "lts.bin.extract_features"
    flags = FLAGS if writing else ("--dataset=synthetic", "--output=X.npz")
    done = invoke(program, f"--model={model}", *flags)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert message in done.stderr
    assert done.stderr.endswith("Received: hf://me/features\n")
    assert TOKEN not in done.stderr


def test_without_network_or_package(hub, folder, monkeypatch):
    """Fails if a hub that cannot be reached or a missing package is no clear line, or the cache is not used."""
    assert share(folder, *FLAGS).returncode == 0
    local_folder("hf://me/features")
    exports_on_hub.download.cache_clear()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert read_description("hf://me/features")["image_size"] == 48  # from the cache
    for action in (
        lambda: local_folder("hf://me/other"),
        lambda: exports_on_hub.upload("me/x", folder, EXPORT.names, {}),
    ):
        with pytest.raises(exports_on_hub.HubError, match=r"hub cannot be reached.*HF_ENDPOINT\. Received: hf://me/"):
            action()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FormatError, match=r"pip install 'lts\[hub\]'"):
        local_folder("hf://me/other")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--repo=me/features",), "the licence of the model is not stated. Give --license=NAME"),
        (("--repo=me/features", "--license=CC BY"), "license must be an identifier"),
        (("--repo=features", "--license=mit"), "Received: 'hf://features'"),
        (("--repo=me/features", "--license=mit", "--model=hf://me/x"), "must be a folder of this computer"),
        (("--repo=me/a..b", "--license=mit"), "Received: hf://me/a..b"),
    ],
)
def test_usage(folder, flags, message):
    """Fails if a licence is assumed, or a wrong flag reaches the network."""
    done = share(folder, *flags)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
