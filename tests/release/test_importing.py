"""Import of release checkpoints: everything that fits is taken, the rest is reported."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from lts.release.checkpoint import CheckpointError
from lts.release.importing import import_checkpoint
from lts.training import checkpoints, export_run, run_dir
from lts.training.checkpoints import Checkpoints, TrainingError
from lts.training.loop import steps_done
from lts.training.run_record import RunRecord
from lts.training.task import checkpoint_items
from lts.training.train import _check_autoencoder, _check_frozen_networks, build_model
from tests.fixtures import release
from tests.fixtures.release import STEP, save, tensors_of, tiny, trained, variables_of

AVERAGE = "/ExponentialMovingAverage"
STAGES = ("autoencoder", "gan")


@pytest.fixture(scope="module")
def tensors() -> dict:
    """Stage to what the release saves of it. NB: shared by all tests, not to be changed."""
    return {stage: tensors_of(trained(stage)) for stage in STAGES}


def restored(workdir, stage: str):
    """Return the model of an imported run, as training restores it."""
    model = build_model(tiny(), stage, 8)
    assert Checkpoints(workdir, checkpoint_items(model)).restore()
    return model


def part(tensors: dict, *prefixes: str) -> dict:
    """Return the tensors whose names begin with a prefix."""
    return {name: value for name, value in tensors.items() if name.startswith(prefixes)}


def without_state(tensors: dict) -> dict:
    """Return only the networks' variables, as a Saver of the model variables writes them."""
    ends = ("/Adam", "/Adam_1", AVERAGE, "_power", "global_step")
    return {name: value for name, value in tensors.items() if not name.endswith(ends)}


@pytest.mark.parametrize("stage", STAGES)
def test_everything_is_taken(tensors, tmp_path, stage):
    """Fails if training does not restore a weight, statistic, moment, average or the step."""
    report = import_checkpoint(tiny(), save(tensors[stage], tmp_path), tmp_path / "run")
    assert (report.stage, report.step, dict(report.missing), dict(report.left_over)) == (stage, STEP, {}, {})
    model = restored(tmp_path / "run", stage)
    assert {int(optimizer.iterations) for optimizer in release.optimizers_of(model)} == {STEP}
    ours = tensors_of(model)
    assert ours.keys() == tensors[stage].keys()
    for name, value in tensors[stage].items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    record = run_dir.read_run_config(tmp_path / "run")
    assert (record.stage, record.imported.missing) == (stage, ())
    assert checkpoints.newest_step(tmp_path / "run") == record.imported.release_step == STEP


@pytest.mark.parametrize("stage", STAGES)
def test_next_step_equals_the_release_s(tensors, tmp_path, stage):
    """Fails if Adam has another step, or lacks its moments."""
    import_checkpoint(tiny(), save(tensors[stage], tmp_path), tmp_path / "run")
    images = tf.random.stateless_uniform([4, 16, 16, 3], [1, 2], -1, 1)
    after = []
    for model in (trained(stage), restored(tmp_path / "run", stage)):
        model.train_step(images)
        assert steps_done(model) == STEP + 1
        after.append(tensors_of(model))
    for name, value in after[0].items():
        np.testing.assert_array_equal(after[1][name], value, err_msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_averaged_weights(tensors, tmp_path, stage):
    """Fails if a trained weight is not its average, or another variable is."""
    theirs = tensors[stage]
    report = import_checkpoint(tiny(), save(theirs, tmp_path), tmp_path / "run", weights="averaged")
    for name, variable in variables_of(restored(tmp_path / "run", stage)).items():
        trains = "moving" not in name and (stage == "autoencoder" or name.startswith(("generator", "discriminator")))
        np.testing.assert_array_equal(variable.numpy(), theirs[f"{name}{AVERAGE if trains else ''}"], err_msg=name)
    assert set(report.left_over) == {name for name in theirs if name + AVERAGE in theirs}


def test_frozen_networks_are_never_averaged(tensors, tmp_path):
    """Fails if stage 2 gets an averaged encoder: its average begins at random weights."""
    odd = {"encoder/conv_0/weights" + AVERAGE: np.ones([3, 3, 3, 4], np.float32)}
    report = import_checkpoint(tiny(), save(tensors["gan"] | odd, tmp_path), tmp_path / "run", weights="averaged")
    kernel = variables_of(restored(tmp_path / "run", "gan"))["encoder/conv_0/weights"]
    np.testing.assert_array_equal(kernel.numpy(), tensors["gan"]["encoder/conv_0/weights"])
    assert odd.keys() < report.left_over.keys()


def test_a_backbone_by_itself(tensors, tmp_path):
    """Fails if missing variables are not reported or not those of the seed, or if the export hides them."""
    backbone = part(without_state(tensors["gan"]), "discriminator/conv_", "discriminator/drop_pred")
    report = import_checkpoint(tiny(), save(backbone, tmp_path), tmp_path / "run")
    assert report.taken.keys() == backbone.keys()
    assert (report.stage, report.step) == ("gan", 0)
    other = tmp_path / "other"
    import_checkpoint(tiny(), save(backbone, tmp_path), other)
    both = [restored(workdir, "gan") for workdir in (tmp_path / "run", other)]
    for name, variable in variables_of(both[0]).items():
        assert (name in backbone) != (name in report.missing)
        wanted = backbone[name] if name in backbone else variables_of(both[1])[name].numpy()
        np.testing.assert_array_equal(variable.numpy(), wanted, err_msg=name)
    for variable, first, second, average in both[0].optimizer.slots():
        assert not first.numpy().any()
        assert not second.numpy().any()
        np.testing.assert_array_equal(average.numpy(), variable.numpy())

    export_run(tmp_path / "run", tmp_path / "features")
    description = json.loads((tmp_path / "features" / "config.json").read_text())
    assert description["imported"]["checkpoint"] == "model.ckpt-4"
    assert {name.split("/")[1] for name in description["imported"]["untrained"]} == {"fc_1", "fc_2"}
    assert not description["spot"]
    assert "spot" not in tf.saved_model.load(str(tmp_path / "features")).signatures
    card = (tmp_path / "features" / "README.md").read_text()
    assert "| began as | model.ckpt-4 of the authors' TensorFlow 1 program (raw weights) |" in card
    for words in ("| images |", "| seed |", "| steps |", "| batch |"):  # none of them is known
        assert words not in card
    with pytest.raises(TrainingError, match="without all averages"):
        export_run(tmp_path / "run", tmp_path / "averaged", "averaged")


def test_no_features_no_export(tensors, tmp_path):
    """Fails if random features are exported under the release's name."""
    heads = part(without_state(tensors["gan"]), "discriminator/fc_", "discriminator/conv_1/")
    import_checkpoint(tiny(), save(heads, tmp_path), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"without discriminator/conv_2/conv_0/weights, and not trained since"):
        export_run(tmp_path / "run", tmp_path / "features")
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("lost", ["generator/repair_1/conv2/weights/Adam_1", "global_step"])
def test_adam_resumes_completely_or_not_at_all(tensors, tmp_path, lost):
    """Fails if Adam resumes without a moment or its step: its steps would have a wrong length."""
    kept = {name: value for name, value in tensors["gan"].items() if name != lost}
    report = import_checkpoint(tiny(), save(kept, tmp_path), tmp_path / "run")
    assert (report.step, report.missing_state, dict(report.missing)) == (0, (lost,), {})
    model = restored(tmp_path / "run", "gan")
    for optimizer in release.optimizers_of(model):
        for _, first, second, _ in optimizer.slots():
            assert not first.numpy().any()
            assert not second.numpy().any()
    assert set(report.left_over) == {name for name in kept if name.endswith(("/Adam", "/Adam_1", "_power", "_step"))}


def test_powers_of_another_step_are_left_over(tensors, tmp_path):
    """Fails if Adam's powers are taken although they do not follow from the step."""
    odd = {**tensors["autoencoder"], "beta1_power": np.float32(0.5), "fully_connected/fc1/biases": np.zeros(3)}
    report = import_checkpoint(tiny(), save(odd, tmp_path), tmp_path / "run")
    assert dict(report.left_over) == {"beta1_power": (), "fully_connected/fc1/biases": (3,)}


def test_the_autoencoder_of_a_whole_model(tensors, tmp_path):
    """Fails if only the autoencoder of a complete model cannot be imported."""
    report = import_checkpoint(tiny(), save(tensors["gan"], tmp_path), tmp_path / "run", stage="autoencoder")
    assert {name.split("/")[0] for name in report.taken} == {"encoder", "decoder"}
    assert (report.stage, dict(report.missing)) == ("autoencoder", {})
    assert part(report.left_over, "discriminator/fc_1/weights")


def test_the_report_names_every_variable(tensors, tmp_path):
    """Fails if a variable is not listed, or a line is wider than a terminal."""
    some = part(tensors["gan"], "discriminator/conv_1", "generator") | {"queue/size": np.zeros([2, 3], np.float32)}
    report = import_checkpoint(tiny(), save(some, tmp_path), tmp_path / "run")
    text = str(report)
    for name in (*report.taken, *report.missing, *report.left_over):
        assert f"\n  {name} " in text, name
    assert "discriminator/conv_1/weights" in text.split("missing:")[0]
    assert "queue/size" in text.split("left over")[1]
    assert "3x3x3x4  " in text
    assert max(map(len, text.splitlines())) <= 120
    taken = sum(some[name].size for name in report.taken)
    assert f"{len(report.taken)} variables, {taken:,} parameters" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder/conv_1/weights": np.zeros([2, 2, 4, 9])}, r"encoder/conv_1/weights is \[2, 2, 4, 9\] in model.ckpt"),
        ({"encoder/conv_1/weights/Adam": np.zeros([9])}, r"Adam is \[9\] in model.ckpt-4, \[2, 2, 4, 8\] in this"),
        ({"global_step": np.zeros([2], np.int64)}, r"global_step is \[2\]"),
        ({"encoder/conv_0/BatchNorm/beta": np.full([4], np.nan, np.float32)}, "batch_norm/beta is not finite"),
    ],
)
def test_mismatch_is_refused(tensors, tmp_path, change, words):
    """Fails if the message lacks name or shapes, or something is written."""
    prefix = save(tensors["autoencoder"] | change, tmp_path / "release")
    with pytest.raises((CheckpointError, TrainingError), match=words):
        import_checkpoint(tiny(), prefix, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_averages_that_are_not_there(tensors, tmp_path):
    """Fails if raw weights pass for averaged ones."""
    prefix = save(without_state(tensors["gan"]), tmp_path / "release")
    with pytest.raises(CheckpointError, match=r"no average of \S+ and of \d+ other weights\. .* --weights=raw"):
        import_checkpoint(tiny(), prefix, tmp_path / "run", weights="averaged")
    assert not (tmp_path / "run").exists()


def test_other_files_are_refused(tensors, tmp_path):
    """Fails if a missing, foreign or truncated checkpoint is not an error of one line."""

    def refused(path, words):
        with pytest.raises(CheckpointError, match=words):
            import_checkpoint(tiny(), path, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    (tmp_path / "text.index").write_text("hello")
    refused(tmp_path / "nothing", "there is no TensorFlow checkpoint at .*nothing")
    refused(tmp_path, "there is no TensorFlow checkpoint")
    refused(tmp_path / "text", "cannot be read as a TensorFlow checkpoint")
    refused(save({"vgg/conv1/weights": np.ones(3)}, tmp_path, "vgg"), "no variable of the .*; it holds vgg/conv1")
    prefix = save(tensors["autoencoder"], tmp_path, "cut")
    data = prefix.with_name("cut.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:1000])
    refused(prefix, "cut cannot be read")


def test_names_of_files_and_folders_are_accepted(tensors, tmp_path):
    """Fails at a name that a shell completes, or at the folder of the newest checkpoint."""
    prefix = save(tensors["autoencoder"], tmp_path / "release")
    (tmp_path / "release" / "checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')
    for number, path in enumerate((f"{prefix}.", f"{prefix}.index", f"{prefix}.data-00000-of-00001", prefix.parent)):
        assert import_checkpoint(tiny(), path, tmp_path / str(number)).step == STEP


def test_an_output_that_exists_is_refused(tensors, tmp_path):
    """Fails if an import overwrites a run."""
    prefix = save(tensors["autoencoder"], tmp_path / "release")
    (tmp_path / "run").mkdir()
    import_checkpoint(tiny(), prefix, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(TrainingError, match=r"output exists.*Give another --output"):
        import_checkpoint(tiny(seed=3), prefix, tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_first_training_sets_the_remaining_configuration(tensors, tmp_path):
    """Fails if the first training may change networks, or a later one data, schedule or losses."""
    workdir = tmp_path / "run"
    import_checkpoint(tiny(), save(tensors["autoencoder"], tmp_path), workdir)
    config = tiny(learning_rate=0.5, ema_decay=0.0, weight_decay=0.1)
    record = RunRecord("autoencoder", config, dataset="folder:a", data={"images": 3})
    with pytest.raises(TrainingError, match=r"autoencoder\.bn_epsilon"):
        run_dir.open_run(workdir, dataclasses.replace(record, config=tiny(bn_epsilon=0.1)))
    with pytest.raises(TrainingError, match="stage: autoencoder -> gan"):
        run_dir.open_run(workdir, dataclasses.replace(record, stage="gan"))
    assert run_dir.read_run_config(workdir).dataset is None
    assert run_dir.open_run(workdir, record).imported.step == STEP
    assert run_dir.read_run_config(workdir).imported.step == STEP
    run_dir.open_run(workdir, record)
    for other in ({"config": tiny(learning_rate=0.4)}, {"dataset": "folder:b", "data": {"images": 4}}):
        with pytest.raises(TrainingError, match="holds a run of another configuration"):
            run_dir.open_run(workdir, dataclasses.replace(record, **other))


def test_stage_2_has_one_encoder_and_decoder(tensors, tmp_path):
    """Fails if an import without encoder and decoder starts, or one with them takes another."""
    for name, some in (
        ("whole", tensors["gan"]),
        ("backbone", part(tensors["gan"], "discriminator/conv_")),
        ("same", part(without_state(tensors["gan"]), "encoder/", "decoder/")),
        ("other", tensors["autoencoder"] | {"encoder/conv_0/BatchNorm/beta": np.ones(4, np.float32)}),
        ("half", part(tensors["autoencoder"], "encoder/")),
    ):
        import_checkpoint(tiny(), save(some, tmp_path / "release", name), tmp_path / name)
    _check_frozen_networks(tmp_path / "whole", None)
    _check_frozen_networks(tmp_path / "whole", tmp_path / "same")
    _check_frozen_networks(tmp_path / "backbone", tmp_path / "other")
    _check_frozen_networks(tmp_path / "new", None)
    with pytest.raises(TrainingError, match=r"another encoder and decoder.* Omit --autoencoder"):
        _check_frozen_networks(tmp_path / "whole", tmp_path / "other")
    with pytest.raises(TrainingError, match=r"without encoder/conv_0/weights\. .* Give --autoencoder=RUN"):
        _check_frozen_networks(tmp_path / "backbone", None)
    _check_autoencoder(tiny(), tmp_path / "other")
    with pytest.raises(TrainingError, match=r"without decoder/deconv_0/weights\. .* Train it first"):
        _check_autoencoder(tiny(), tmp_path / "half")
