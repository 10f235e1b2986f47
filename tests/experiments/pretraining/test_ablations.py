"""Each ablation changes what its name says and nothing else; what is trained and probed for it is what it asks for."""

import numpy as np
import pytest

from experiments.pretraining import ablations
from experiments.pretraining.ablations import ABLATIONS, VariantError
from experiments.probing.protocols import Protocol
from experiments.reporting import comparison as comparison_report
from lts.config import differences, preset
from lts.export import saved_model
from lts.utils.errors import UserError
from tests.fixtures import probing

STAGE_1 = preset("small")
BASE = STAGE_1.replace("gan_training", steps=1000)
CHANGES = {
    "keep_0.1": "damage.keep_probability: 0.3 -> 0.1",
    "keep_0.5": "damage.keep_probability: 0.3 -> 0.5",
    "keep_0.7": "damage.keep_probability: 0.3 -> 0.7",
    "keep_0.9": "damage.keep_probability: 0.3 -> 0.9",
    "no_mask_head": "loss.mask_weight: 0.1 -> 0.0",
    "no_repair": "damage.repair: True -> False",
    "zero_fill": "damage.damage_fill: average -> zero",
    "release_loss": "loss.generator_loss: non_saturating -> confusion",
    "reconstruct_all": "loss.reconstruct: kept -> all",
    "reconstruct_dropped": "loss.reconstruct: kept -> dropped",
    "real_source": "loss.real_source: reconstruction -> image",
    "encoder_3x3": "autoencoder.encoder_kernel: 2 -> 3",
}


def choose(*only, base=BASE, **own):
    return ablations.choose(only, own, base, STAGE_1)


def test_every_ablation_changes_what_its_name_says_alone():
    base, *others = choose()
    assert (base.name, base.config, base.autoencoder) == ("base", BASE, None)
    assert {one.name: differences(BASE, one.config) for one in others} == {k: [v] for k, v in CHANGES.items()}
    assert list(ABLATIONS) == list(CHANGES)


def test_a_variant_has_an_autoencoder_of_its_own_only_where_stage_1_differs():
    chosen = {one.name: one for one in choose(wide={"autoencoder_training.steps": "9"}, late={"learning_rate": "0.1"})}
    assert [name for name, one in chosen.items() if one.autoencoder] == ["encoder_3x3", "wide"]
    assert differences(STAGE_1, chosen["encoder_3x3"].autoencoder) == [CHANGES["encoder_3x3"]]
    assert differences(STAGE_1, chosen["wide"].autoencoder) == ["autoencoder_training.steps: 16000 -> 9"]
    assert differences(BASE, chosen["late"].config) == ["gan_training.learning_rate: 0.001 -> 0.1"]


def test_some_can_be_picked_and_the_base_is_among_them():
    assert [one.name for one in choose("keep_0.5", "no_repair", "keep_0.5")] == ["base", "keep_0.5", "no_repair"]
    assert [one.name for one in choose("base")] == ["base", *ABLATIONS]
    assert [one.name for one in choose("mine", mine={"repair": "false"})] == ["base", "mine"]


def test_what_the_base_has_is_left_out_or_refused_by_name(capsys):
    base = BASE.replace(generator_loss="confusion")
    assert "release_loss" not in [one.name for one in choose(base=base)]
    assert "skipping release_loss (generator_loss=confusion)" in capsys.readouterr().out
    with pytest.raises(VariantError, match=r"must differ from the base. Received: release_loss "):
        choose("release_loss", base=base)
    with pytest.raises(VariantError, match=r"must differ from the base. Received: mine "):
        choose(mine={"keep_probability": "0.3"})


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"mine": {"keep": "1"}}, "unknown field. Received: 'keep'"),
        ({"mine": {"keep_probability": "2"}}, "keep_probability must be"),
        (
            {"mine": {"autoencoder_training.repair": "false"}},
            r"must be a field of a training. Received: autoencoder_training\.repair",
        ),
    ],
)
def test_fields_that_cannot_be(own, message):
    with pytest.raises(UserError, match=message):
        choose(**own)


def test_an_unknown_name_is_said_with_the_known_ones():
    with pytest.raises(
        VariantError, match=r"unknown ablation. Received: 'keep_0\.4'. Known: base, keep_0\.1, .*encoder_3x3, mine"
    ):
        choose("keep_0.4", mine={"repair": "false"})


@pytest.mark.parametrize(
    ("text", "name", "fields"),
    [
        ("a:keep_probability=0.4", "a", {"keep_probability": "0.4"}),
        (
            "a:encoder_filters=8,16,autoencoder_training.steps=5",
            "a",
            {"encoder_filters": "8,16", "autoencoder_training.steps": "5"},
        ),
    ],
)
def test_variants_of_the_command_line(text, name, fields):
    assert ablations.parse(text) == (name, fields)


@pytest.mark.parametrize(
    "text", ["", "a", "a:", "a:b", "a:=3", ":b=3", "../a:b=3", "autoencoder:b=3", "base:b=3", "no_repair:b=3"]
)
def test_variants_that_cannot_be_read(text):
    with pytest.raises(VariantError, match="Received: "):
        ablations.parse(text)


@pytest.fixture
def world(monkeypatch):
    """Trainings and exports that are written down, models whose seed is the place of their training."""
    calls = []
    monkeypatch.setattr(
        ablations,
        "train_stage",
        lambda config, stage, source, folder, **more: calls.append((stage, folder.name, config, more)),
    )
    from lts import training

    monkeypatch.setattr(training, "export_run", lambda run, output, source: calls.append(("export", run, output)))
    monkeypatch.setattr(saved_model, "load", lambda path: probing.Model(path, len(path.parent.name)))
    monkeypatch.setattr("lts.data.test_batches", probing.batches)
    return calls


def test_trainings_lie_where_they_are_expected_and_are_not_repeated(world, tmp_path):
    source = probing.source("pretrain")
    chosen = choose("encoder_3x3", "no_repair")
    ablations.pretrain(chosen, STAGE_1, source, tmp_path)
    own = chosen[1]
    shared = {"autoencoder": tmp_path / "autoencoder"}
    assert world == [
        ("autoencoder", "autoencoder", STAGE_1, {}),
        ("gan", "gan", BASE, shared),
        ("export", tmp_path / "base" / "gan", tmp_path / "base" / "features"),
        ("autoencoder", "autoencoder", own.autoencoder, {}),
        ("gan", "gan", own.config, {"autoencoder": tmp_path / "encoder_3x3" / "autoencoder"}),
        ("export", tmp_path / "encoder_3x3" / "gan", tmp_path / "encoder_3x3" / "features"),
        ("gan", "gan", chosen[2].config, shared),
        ("export", tmp_path / "no_repair" / "gan", tmp_path / "no_repair" / "features"),
    ]
    count = len(world)
    ablations.pretrain(choose("no_repair", "zero_fill"), STAGE_1, source, tmp_path)
    assert [call[0] for call in world[count:]] == ["gan", "export"]
    with pytest.raises(UserError, match="holds another run"):
        ablations.pretrain(choose(base=STAGE_1.replace("gan_training", steps=7)), STAGE_1, source, tmp_path)


def test_differences_are_paired_with_the_base(world, tmp_path):
    train, validation = probing.source("train"), probing.source("test", 10)
    protocol = Protocol(dimensions=30)
    chosen = choose("keep_0.5", "no_repair")
    results = ablations.probe(chosen, probing.source("pretrain"), train, validation, protocol, tmp_path)
    for one in results["variants"].values():
        for layer in ("conv_1", "conv_2"):
            expected = one["layers"][layer]["accuracy"] - results["base"]["layers"][layer]["accuracy"]
            assert one["difference"][layer]["accuracy"] == pytest.approx(expected, abs=1e-12)
            low, high = one["difference"][layer]["interval"]
            assert low <= expected <= high
            assert "correct" not in one["layers"][layer]
    assert results["variants"]["no_repair"]["changed"] == [CHANGES["no_repair"]]
    assert results["variants"]["keep_0.5"]["path"] == "keep_0.5/features"
    same = [np.ptp(one["difference"]["conv_1"]["interval"]) for one in results["variants"].values()]
    assert max(same) > 0
    comparison_report.write(results, tmp_path)
    assert "never on test images" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
