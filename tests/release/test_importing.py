"""Checkpoints of the release become runs: everything that fits is taken, nothing is passed over in silence."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from lts.release.checkpoint import CheckpointError
from lts.release.importing import import_checkpoint
from lts.training import export_run, run_dir
from lts.training.loop import steps_done
from lts.training.run_dir import Checkpoints, TrainingError
from lts.training.run_record import RunRecord
from lts.training.task import checkpoint_items
from lts.training.train import _check_autoencoder, _check_frozen_networks, build_model
from tests.fixtures import release
from tests.fixtures.release import STEP, save, tensors_of, tiny, trained, variables_of

AVERAGE = "/ExponentialMovingAverage"
STAGES = ("autoencoder", "gan")


@pytest.fixture(scope="module")
def tensors() -> dict:
    """Stage to everything that the release saves of it; not to be changed."""
    return {stage: tensors_of(trained(stage)) for stage in STAGES}


def restored(workdir, stage: str):
    """The model of an imported run, as training restores it."""
    model = build_model(tiny(), stage, 8)
    assert Checkpoints(workdir, checkpoint_items(model)).restore()
    return model


def part(tensors: dict, *prefixes: str) -> dict:
    """The tensors whose names begin so."""
    return {name: value for name, value in tensors.items() if name.startswith(prefixes)}


def without_state(tensors: dict) -> dict:
    """The networks' variables alone, as a Saver of the model variables writes them."""
    ends = ("/Adam", "/Adam_1", AVERAGE, "_power", "global_step")
    return {name: value for name, value in tensors.items() if not name.endswith(ends)}


@pytest.mark.parametrize("stage", STAGES)
def test_everything_is_taken(tensors, tmp_path, stage):
    """Weights, statistics, both moments, averages and the step stand where training restores them from."""
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
    assert run_dir.newest_step(tmp_path / "run") == record.imported.release_step == STEP


@pytest.mark.parametrize("stage", STAGES)
def test_the_next_step_is_the_one_the_checkpoint_would_have_made(tensors, tmp_path, stage):
    """Adam with another step or without its moments goes elsewhere."""
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
    """Trained weights are their averages; statistics, and networks that the stage does not train, are as they are."""
    theirs = tensors[stage]
    report = import_checkpoint(tiny(), save(theirs, tmp_path), tmp_path / "run", weights="averaged")
    for name, variable in variables_of(restored(tmp_path / "run", stage)).items():
        trains = "moving" not in name and (stage == "autoencoder" or name.startswith(("generator", "discriminator")))
        np.testing.assert_array_equal(variable.numpy(), theirs[f"{name}{AVERAGE if trains else ''}"], err_msg=name)
    assert set(report.left_over) == {name for name in theirs if name + AVERAGE in theirs}


def test_frozen_networks_are_never_averaged(tensors, tmp_path):
    """Stage 2 was trained around the encoder as it is; an average of it, from random weights on, is another one."""
    odd = {"encoder/conv_0/weights" + AVERAGE: np.ones([3, 3, 3, 4], np.float32)}
    report = import_checkpoint(tiny(), save(tensors["gan"] | odd, tmp_path), tmp_path / "run", weights="averaged")
    kernel = variables_of(restored(tmp_path / "run", "gan"))["encoder/conv_0/weights"]
    np.testing.assert_array_equal(kernel.numpy(), tensors["gan"]["encoder/conv_0/weights"])
    assert odd.keys() < report.left_over.keys()


def test_a_backbone_by_itself(tensors, tmp_path):
    """What is missing is named and is what the seed makes of it; the features export, with what they lack."""
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
    """Random features must not go out under the release's name."""
    heads = part(without_state(tensors["gan"]), "discriminator/fc_", "discriminator/conv_1/")
    import_checkpoint(tiny(), save(heads, tmp_path), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"without discriminator/conv_2/conv_0/weights, and not trained since"):
        export_run(tmp_path / "run", tmp_path / "features")
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("lost", ["generator/repair_1/conv2/weights/Adam_1", "global_step"])
def test_adam_goes_on_whole_or_not_at_all(tensors, tmp_path, lost):
    """Moments of zero at a late step, or a step of 0 with late moments, would make steps of a wrong length."""
    kept = {name: value for name, value in tensors["gan"].items() if name != lost}
    report = import_checkpoint(tiny(), save(kept, tmp_path), tmp_path / "run")
    assert (report.step, report.missing_state, dict(report.missing)) == (0, (lost,), {})
    model = restored(tmp_path / "run", "gan")
    assert not any(slot.numpy().any() for one in release.optimizers_of(model) for _, *m, _ in one.slots() for slot in m)
    assert set(report.left_over) == {name for name in kept if name.endswith(("/Adam", "/Adam_1", "_power", "_step"))}


def test_powers_of_another_step_are_left_over(tensors, tmp_path):
    """Ours follow from the step: a checkpoint in which they do not is not taken on trust."""
    odd = {**tensors["autoencoder"], "beta1_power": np.float32(0.5), "fully_connected/fc1/biases": np.zeros(3)}
    report = import_checkpoint(tiny(), save(odd, tmp_path), tmp_path / "run")
    assert dict(report.left_over) == {"beta1_power": (), "fully_connected/fc1/biases": (3,)}


def test_the_autoencoder_of_a_whole_model(tensors, tmp_path):
    """For another stage 2 around it: everything else is left over."""
    report = import_checkpoint(tiny(), save(tensors["gan"], tmp_path), tmp_path / "run", stage="autoencoder")
    assert {name.split("/")[0] for name in report.taken} == {"encoder", "decoder"}
    assert (report.stage, dict(report.missing)) == ("autoencoder", {})
    assert part(report.left_over, "discriminator/fc_1/weights")


def test_the_report_names_every_variable(tensors, tmp_path):
    """Readable in a terminal: a line a variable, counts before them, no line too wide."""
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
def test_what_does_not_fit_is_refused(tensors, tmp_path, change, words):
    """With the names and both shapes, before anything is written."""
    prefix = save(tensors["autoencoder"] | change, tmp_path / "release")
    with pytest.raises((CheckpointError, TrainingError), match=words):
        import_checkpoint(tiny(), prefix, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_averages_that_are_not_there(tensors, tmp_path):
    """Raw weights under the name of averaged ones."""
    prefix = save(without_state(tensors["gan"]), tmp_path / "release")
    with pytest.raises(CheckpointError, match=r"no average of \S+ and of \d+ other weights\. .* --weights=raw"):
        import_checkpoint(tiny(), prefix, tmp_path / "run", weights="averaged")
    assert not (tmp_path / "run").exists()


def test_what_is_no_checkpoint_of_the_release(tensors, tmp_path):
    """Nothing there, something else, another program's checkpoint, one that is cut off."""

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


def test_names_of_files_and_folders_will_do(tensors, tmp_path):
    """What a shell completes, and the folder with TensorFlow's own note of the newest."""
    prefix = save(tensors["autoencoder"], tmp_path / "release")
    (tmp_path / "release" / "checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')
    for number, path in enumerate((f"{prefix}.", f"{prefix}.index", f"{prefix}.data-00000-of-00001", prefix.parent)):
        assert import_checkpoint(tiny(), path, tmp_path / str(number)).step == STEP


def test_an_output_that_exists_is_refused(tensors, tmp_path):
    """A run there would be lost."""
    prefix = save(tensors["autoencoder"], tmp_path / "release")
    (tmp_path / "run").mkdir()
    import_checkpoint(tiny(), prefix, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(TrainingError, match=r"output exists.*Give another --output"):
        import_checkpoint(tiny(seed=3), prefix, tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_the_first_training_settles_what_the_checkpoint_does_not(tensors, tmp_path):
    """Data, schedule and losses are free once; networks never; afterwards the run is held to its record like any."""
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
    for other in ({"config": tiny(learning_rate=0.4)}, {"dataset": "folder:b"}):
        with pytest.raises(TrainingError, match="holds a run of another configuration"):
            run_dir.open_run(workdir, dataclasses.replace(record, **other))


def test_stage_2_has_one_encoder_and_decoder(tensors, tmp_path):
    """An import without them needs an autoencoder; one with them takes no other."""
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
