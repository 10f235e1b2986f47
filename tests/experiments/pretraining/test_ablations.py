"""Ablations: their configurations, trainings and paired differences."""

import numpy as np
import pytest
import scipy

from experiments.pretraining import ablations
from experiments.pretraining.ablations import ABLATIONS, VariantError
from experiments.probing.protocols import LINEAR, Protocol
from experiments.reporting import comparison as comparison_report
from lts.config import differences, preset
from lts.export import saved_model
from lts.utils.errors import UserError
from tests.fixtures import probing

AUTOENCODER = preset("small")
BASE = AUTOENCODER.replace("gan_training", steps=1000)
CHANGES = {
    "keep_0.1": "damage.keep_probability: 0.3 -> 0.1",
    "keep_0.5": "damage.keep_probability: 0.3 -> 0.5",
    "keep_0.7": "damage.keep_probability: 0.3 -> 0.7",
    "keep_0.9": "damage.keep_probability: 0.3 -> 0.9",
    "no_mask_head": "loss.mask_weight: 0.1 -> 0.0",
    "no_repair": "damage.repair: True -> False",
    "zero_fill": "damage.damage_fill: average -> zero",
    "global_average_fill": "damage.damage_fill: average -> global_average",
    "block_drop": "damage.corruption: cell_drop -> block_drop",
    "channel_drop": "damage.corruption: cell_drop -> channel_drop",
    "cell_shuffle": "damage.corruption: cell_drop -> cell_shuffle",
    "cell_swap": "damage.corruption: cell_drop -> cell_swap",
    "release_loss": "loss.generator_loss: non_saturating -> confusion",
    "reconstruct_all": "loss.reconstruct: kept -> all",
    "reconstruct_dropped": "loss.reconstruct: kept -> dropped",
    "real_source": "loss.real_source: reconstruction -> image",
    "encoder_3x3": "autoencoder.encoder_kernel: 2 -> 3",
}


def choose(*only, base=BASE, **custom):
    """Return the variants of names and custom fields."""
    return ablations.choose(only, custom, base, AUTOENCODER)


def test_every_ablation_changes_one_field():
    """Fails if an ablation changes another field than its name says."""
    base, *variants = choose()
    assert (base.name, base.config, base.autoencoder) == ("base", BASE, None)
    assert {variant.name: differences(BASE, variant.config) for variant in variants} == {
        name: [change] for name, change in CHANGES.items()
    }
    assert list(ABLATIONS) == list(CHANGES)


def test_autoencoders_are_shared_where_they_are_equal():
    """Fails if a variant shares an autoencoder of another configuration, or trains an equal one again."""
    variants = choose(wide={"autoencoder_training.steps": "9"}, late={"learning_rate": "0.1"})
    chosen = {variant.name: variant for variant in variants}
    assert [name for name, variant in chosen.items() if variant.autoencoder] == ["encoder_3x3", "wide"]
    assert differences(AUTOENCODER, chosen["encoder_3x3"].autoencoder) == [CHANGES["encoder_3x3"]]
    assert differences(AUTOENCODER, chosen["wide"].autoencoder) == ["autoencoder_training.steps: 16000 -> 9"]
    assert differences(BASE, chosen["late"].config) == ["gan_training.learning_rate: 0.001 -> 0.1"]


def test_only_picks_variants():
    """Fails if --only loses the base, repeats a variant or drops a custom one."""
    assert [variant.name for variant in choose("keep_0.5", "no_repair", "keep_0.5")] == [
        "base",
        "keep_0.5",
        "no_repair",
    ]
    assert [variant.name for variant in choose("base")] == ["base", *ABLATIONS]
    assert [variant.name for variant in choose("mine", mine={"repair": "false"})] == ["base", "mine"]


def test_variants_equal_to_the_base(capsys):
    """Fails if a variant that changes nothing is trained."""
    base = BASE.replace(generator_loss="confusion")
    assert "release_loss" not in [variant.name for variant in choose(base=base)]
    assert "skipping release_loss (generator_loss=confusion)" in capsys.readouterr().out
    with pytest.raises(VariantError, match=r"must differ from the base. Received: release_loss "):
        choose("release_loss", base=base)
    with pytest.raises(VariantError, match=r"must differ from the base. Received: mine "):
        choose(mine={"keep_probability": "0.3"})


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ({"mine": {"keep": "1"}}, "unknown field. Received: 'keep'"),
        ({"mine": {"keep_probability": "2"}}, "keep_probability must be"),
        (
            {"mine": {"autoencoder_training.repair": "false"}},
            r"must be a field of a training. Received: autoencoder_training\.repair",
        ),
    ],
)
def test_invalid_fields(custom, message):
    """Fails if an invalid field or value becomes a variant."""
    with pytest.raises(UserError, match=message):
        choose(**custom)


def test_an_unknown_name_is_reported_with_the_known_ones():
    """Fails if a misspelt name is ignored."""
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
def test_parse(text, name, fields):
    """Fails if a list's commas separate fields."""
    assert ablations.parse(text) == (name, fields)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:",
        "a:b",
        "a:=3",
        ":b=3",
        "../a:b=3",
        "autoencoder:b=3",
        "base:b=3",
        "no_repair:b=3",
        "results.md:b=3",
    ],
)
def test_invalid_variants(text):
    """Fails if text of another form becomes a variant, or a name escapes the folder or is that of a file in it."""
    with pytest.raises(VariantError, match="Received: "):
        ablations.parse(text)


@pytest.fixture
def world(monkeypatch):
    """Calls of trainings and exports, and models whose seed is their folder."""
    calls = []
    from lts import training

    def train_stage(config, stage, source, folder, **more):
        calls.append((stage, folder.name, config, more))

    monkeypatch.setattr(ablations, "train_stage", train_stage)
    monkeypatch.setattr(training, "export_run", lambda run, output, source: calls.append(("export", run, output)))
    monkeypatch.setattr(saved_model, "load", lambda path: probing.Model(path, len(path.parent.name)))
    monkeypatch.setattr("lts.data.test_batches", probing.batches)
    return calls


def test_trainings_run_once(world, tmp_path):
    """Fails if a stage gets a wrong configuration or autoencoder, runs twice, or mixes with another run."""
    source = probing.source("pretrain")
    chosen = choose("encoder_3x3", "no_repair")
    ablations.pretrain(chosen, AUTOENCODER, source, tmp_path)
    encoder_3x3 = chosen[1]
    shared = {"autoencoder": tmp_path / "autoencoder"}
    assert world == [
        ("autoencoder", "autoencoder", AUTOENCODER, {}),
        ("gan", "gan", BASE, shared),
        ("export", tmp_path / "base" / "gan", tmp_path / "base" / "features"),
        ("autoencoder", "autoencoder", encoder_3x3.autoencoder, {}),
        ("gan", "gan", encoder_3x3.config, {"autoencoder": tmp_path / "encoder_3x3" / "autoencoder"}),
        ("export", tmp_path / "encoder_3x3" / "gan", tmp_path / "encoder_3x3" / "features"),
        ("gan", "gan", chosen[2].config, shared),
        ("export", tmp_path / "no_repair" / "gan", tmp_path / "no_repair" / "features"),
    ]
    count = len(world)
    ablations.pretrain(choose("no_repair", "zero_fill"), AUTOENCODER, source, tmp_path)
    assert [call[0] for call in world[count:]] == ["gan", "export"]
    with pytest.raises(UserError, match="holds another run"):
        ablations.pretrain(choose(base=AUTOENCODER.replace("gan_training", steps=7)), AUTOENCODER, source, tmp_path)


def test_differences_are_paired_with_the_base(world, tmp_path):
    """Fails if a difference is not that of the accuracies, or the caption hides the validation images."""
    train = probing.source("train")
    validation = probing.source("test", 10)
    protocol = Protocol(dimensions=30)
    chosen = choose("keep_0.5", "no_repair")
    results = ablations.probe(chosen, probing.source("pretrain"), train, validation, protocol, tmp_path)
    for variant in results["variants"].values():
        for layer in ("conv_1", "conv_2"):
            expected = variant["layers"][layer]["accuracy"] - results["base"]["layers"][layer]["accuracy"]
            assert variant["difference"][layer]["accuracy"] == pytest.approx(expected, abs=1e-12)
            low, high = variant["difference"][layer]["interval"]
            assert low <= expected <= high
            assert "correct" not in variant["layers"][layer]
    assert results["variants"]["no_repair"]["changed"] == [CHANGES["no_repair"]]
    assert results["variants"]["keep_0.5"]["path"] == "keep_0.5/features"
    widths = [np.ptp(variant["difference"]["conv_1"]["interval"]) for variant in results["variants"].values()]
    assert max(widths) > 0
    comparison_report.write(results, tmp_path)
    assert "never on test images" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_means_over_seeds():
    """Fails if the interval is over images, or the differences are not paired by seed."""
    accuracies = {"base": [0.60, 0.62, 0.58], "wide": [0.63, 0.66, 0.60]}

    def entry(name, seed):
        return {"path": f"{name}/features", "layers": {"conv_1": {"accuracy": accuracies[name][seed]}}}

    results = [
        {"kind": "ablate", "base": entry("base", seed), "variants": {"wide": {**entry("wide", seed), "difference": {}}}}
        for seed in range(3)
    ]
    means = ablations.mean_over_seeds(results, (4, 5, 6), LINEAR["ridge"])
    base = means["base"]["layers"]["conv_1"]
    np.testing.assert_allclose(base["accuracy"], 0.60)
    arm = scipy.stats.t.ppf(0.975, 2) * 0.02 / np.sqrt(3)
    np.testing.assert_allclose(base["interval"], [0.60 - arm, 0.60 + arm], rtol=1e-6)
    difference = means["variants"]["wide"]["difference"]["conv_1"]
    arm = scipy.stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    np.testing.assert_allclose(difference["accuracy"], 0.03)
    np.testing.assert_allclose(difference["interval"], [0.03 - arm, 0.03 + arm], rtol=1e-6)
    assert means["seeds"] == [4, 5, 6]
    assert means["base"]["path"] == "seed_4/base/features"
