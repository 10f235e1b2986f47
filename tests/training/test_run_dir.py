"""The record and the checkpoints of a run."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from lts.config import preset
from lts.networks.variables import variables_by_path
from lts.training import run_dir
from lts.training.checkpoints import Checkpoints, TrainingError, read_checkpoint
from lts.training.loop import steps_done
from lts.training.run_record import RunRecord
from lts.training.task import checkpoint_items
from lts.training.train import ALL_NETWORKS, _check_autoencoder, _initialize, build_model


def _config(**overrides):
    return preset(
        "tiny", steps=2, batch_size=4, encoder_filters="4,4,8,8", backbone_filters="4,8,8,8,8", fc_units=8, **overrides
    )


def _values(model) -> dict:
    items = checkpoint_items(model).items()
    return {f"{name}/{path}": v.numpy() for name, item in items for path, v in variables_by_path(item).items()}


@pytest.mark.parametrize("stage", ["autoencoder", "gan"])
def test_a_checkpoint_holds_every_variable(tmp_path, stage):
    """Fails if a variable is missing, such as those in Keras' lists of layers, which TensorFlow silently skips."""
    model = build_model(_config(), stage, 2)
    Checkpoints(tmp_path, checkpoint_items(model)).save(0)
    stored = read_checkpoint(tmp_path / "checkpoints" / "step_00000000")
    values = _values(model)
    assert stored.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(stored[name], value, err_msg=name)
    optimizers = [model.optimizer, *([model.g_optimizer] if stage == "gan" else [])]
    held = [*model.variables, *model.means.variables]
    for optimizer in optimizers:
        held += optimizer.variables
    assert len(stored) == len({id(variable) for variable in held})


@pytest.mark.parametrize("stage", ["autoencoder", "gan"])
def test_save_and_restore_is_exact(tmp_path, stage):
    """Fails if weights, statistics, slots of an optimizer or the step are not bit-identical."""
    model = build_model(_config(ema_decay=0.9), stage, 2)
    model.train_step(tf.random.stateless_uniform([4, 48, 48, 3], [1, 2], -1, 1))
    Checkpoints(tmp_path, checkpoint_items(model)).save(1)
    other = build_model(_config(ema_decay=0.9), stage, 2)
    before = _values(other)
    assert Checkpoints(tmp_path, checkpoint_items(other)).restore()
    assert steps_done(other) == 1
    expected = _values(model)
    restored = _values(other)
    assert expected.keys() == restored.keys()
    assert any(not np.array_equal(before[name], expected[name]) for name in expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(restored[name], value, err_msg=name)


def test_single_networks_come_out_of_a_run(tmp_path):
    """Fails if stage 2 misses a variable of stage 1's encoder and decoder, or changes another network."""
    source = build_model(_config(), "autoencoder", 2)
    Checkpoints(tmp_path, checkpoint_items(source)).save(7)
    model = build_model(_config(), "gan", 2)
    before = [v.numpy() for v in model.repair.variables]
    assert run_dir.restore_networks(tmp_path, encoder=model.encoder, decoder=model.decoder) == 7
    for restored, saved in ((model.encoder, source.encoder), (model.decoder, source.decoder)):
        for variable, expected in zip(restored.variables, saved.variables, strict=True):
            np.testing.assert_array_equal(variable.numpy(), expected.numpy(), err_msg=variable.path)
    for value, variable in zip(before, model.repair.variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


def test_a_checkpoint_of_other_networks_is_refused(tmp_path):
    """Fails if a missing or misshapen variable keeps its random weights."""
    Checkpoints(tmp_path, checkpoint_items(build_model(_config(), "autoencoder", 2))).save(0)
    wider = build_model(_config().replace(encoder_filters="8,8,8,8"), "autoencoder", 2)
    with pytest.raises(TrainingError, match="kernel has shape"):
        Checkpoints(tmp_path, checkpoint_items(wider)).restore()
    with pytest.raises(TrainingError, match="does not hold discriminator"):
        run_dir.restore_networks(tmp_path, discriminator=build_model(_config(), "gan", 2).discriminator)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """Fails if a checkpoint with NaN takes the place of a good one."""
    model = build_model(_config(), "autoencoder", 2)
    checkpoints = Checkpoints(tmp_path, checkpoint_items(model))
    kernel = model.encoder.blocks[1].kernel
    kernel.assign(tf.fill(kernel.shape, float("nan")))
    with pytest.raises(TrainingError, match="encoder/conv_1/kernel is not finite at step 5"):
        checkpoints.save(5)
    assert checkpoints.newest is None


def test_a_workdir_belongs_to_one_configuration(tmp_path, capsys):
    """Fails if a differing field is not named, or if changed data are more than a warning."""
    record = RunRecord("autoencoder", _config(), data={"images": 3})
    run_dir.open_run(tmp_path, record)
    run_dir.open_run(tmp_path, dataclasses.replace(record, data={"images": 4}))
    assert "warning: the data changed" in capsys.readouterr().err
    other = _config(learning_rate=0.5, keep_probability=0.7)
    with pytest.raises(TrainingError) as caught:
        run_dir.open_run(tmp_path, RunRecord("gan", other))
    for words in (
        "autoencoder_training.learning_rate: 0.012 -> 0.5",
        "damage.keep_probability: 0.3 -> 0.7",
        "autoencoder -> gan",
    ):
        assert words in str(caught.value)


def test_contents_decide_and_paths_are_noted(tmp_path, capsys):
    """Fails if a moved folder of equal contents is another run, or other contents elsewhere are the same run."""
    origins = {"autoencoder": "/ae", "init_from": "/old", "fingerprints": {"autoencoder": "a", "init_from": "b"}}
    record = RunRecord("gan", _config(), "folder:photos", place="/x/photos", data={"images": 3}, **origins)
    run_dir.open_run(tmp_path, record)
    moved = dataclasses.replace(
        record, dataset="folder:/y/pictures", place=None, autoencoder="/copy/ae", init_from="/copy/old", hardware="new"
    )
    assert run_dir.open_run(tmp_path, moved) == moved
    noted = run_dir.read_run_config(tmp_path)
    assert noted == dataclasses.replace(moved, hardware=None)  # until the next checkpoint
    assert capsys.readouterr().err == ""
    for change in (
        {"dataset": "folder:/z", "data": {"images": 4}},
        {"autoencoder": "/z", "fingerprints": {"autoencoder": "c", "init_from": "b"}},
        {"init_from": "/z", "fingerprints": {"autoencoder": "a", "init_from": "c"}},
    ):
        name = next(iter(change))
        with pytest.raises(TrainingError, match=rf"\({name}: \S+ -> \S*/z\)"):
            run_dir.open_run(tmp_path, dataclasses.replace(moved, **change))
    changed = {"autoencoder": "c", "init_from": "b"}
    run_dir.open_run(tmp_path, dataclasses.replace(moved, fingerprints=changed))
    assert capsys.readouterr().err.count("warning: the weights of /copy/ae changed") == 1


@pytest.mark.parametrize("extend", [False, True])
def test_only_more_steps_extend_a_run(tmp_path, capsys, extend):
    """Fails if a probe's run gets a longer schedule, or if fewer steps are accepted."""
    record = RunRecord("autoencoder", _config(), data={"images": 9})
    run_dir.open_run(tmp_path, record)
    # The schedule of the other stage has no effect.
    longer = record.config.replace("autoencoder_training", steps=0, epochs=2).replace("gan_training", steps=7)
    record = dataclasses.replace(record, config=longer)
    assert record.total_steps == 4
    if not extend:
        with pytest.raises(
            TrainingError, match=r"\(autoencoder_training.epochs: 500 -> 2; autoencoder_training.steps: 2"
        ):
            run_dir.open_run(tmp_path, record)
        return
    run_dir.open_run(tmp_path, record, extend=True)
    assert "autoencoder: extended from 2 to 4 steps" in capsys.readouterr().out
    assert run_dir.read_run_config(tmp_path) == record
    shorter = dataclasses.replace(record, config=record.config.replace("autoencoder_training", steps=3))
    with pytest.raises(TrainingError, match=r"autoencoder_training\.steps: 0 -> 3"):
        run_dir.open_run(tmp_path, shorter, extend=True)


@pytest.mark.parametrize("stage", ["autoencoder", "gan"])
def test_new_run_begins_with_the_weights_of_another(tmp_path, stage):
    """Fails if a weight, a statistic or an average is not taken over, or the optimizer or the step is."""
    config = _config(ema_decay=0.9)
    source = build_model(config, stage, 2)
    source.train_step(tf.random.stateless_uniform([4, 48, 48, 3], [1, 2], -1, 1))
    Checkpoints(tmp_path, checkpoint_items(source)).save(1)
    model = build_model(config, stage, 2)
    _initialize(model, stage, tmp_path)
    fresh = _values(build_model(config, stage, 2))
    expected = _values(source)
    networks = 0
    for name, value in _values(model).items():
        is_network = name.split("/")[0] in ALL_NETWORKS
        networks += is_network
        if not name.endswith("_average"):
            np.testing.assert_array_equal(value, (expected if is_network else fresh)[name], err_msg=name)
    assert networks == len(model.variables)
    assert steps_done(model) == 0
    for variable, *_, average in model.optimizer.slots():
        np.testing.assert_array_equal(average.numpy(), variable.numpy())


def test_weights_of_another_run_without_the_head_of_a_task(tmp_path):
    """Fails if an unsupervised run cannot be continued with labels, or its head does not stay random."""
    source = build_model(_config(), "gan", 2)
    Checkpoints(tmp_path, checkpoint_items(source)).save(0)
    model = build_model(_config(labels_weight=1.0), "gan", 2, classes=3)
    head = model.discriminator.further_heads["labels"].kernel.numpy()
    _initialize(model, "gan", tmp_path)
    np.testing.assert_array_equal(model.discriminator.further_heads["labels"].kernel.numpy(), head)
    np.testing.assert_array_equal(model.discriminator.fc_1.kernel.numpy(), source.discriminator.fc_1.kernel.numpy())
    with pytest.raises(TrainingError, match="does not hold discriminator/labels_head/"):
        run_dir.restore_networks(tmp_path, discriminator=model.discriminator)


@pytest.mark.parametrize("name", run_dir.WRITTEN)
def test_files_of_the_user_are_no_run(tmp_path, name):
    """Fails if a new run removes curves and metrics that another program has written."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    with pytest.raises(TrainingError, match=f"has {name}, which a run would replace, but no config.json"):
        run_dir.open_run(tmp_path, RunRecord("gan", _config()))
    assert (tmp_path / name).read_text() == "precious"


def test_a_damaged_record_is_one_clear_line(tmp_path):
    """Fails if the message does not say what is wrong with config.json."""
    (tmp_path / "config.json").write_text('{"stage": "gan", "config": {"image": {"size": 3}}}')
    with pytest.raises(TrainingError, match=r"unknown field. Received: image\.'size'"):
        run_dir.read_run_config(tmp_path)
    good = RunRecord("gan", _config()).to_dict()
    for content in ("{", "[]", "{}", json.dumps(good | {"stage": 5}), json.dumps(good | {"config": []})):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(TrainingError, match=r"config\.json"):
            run_dir.read_run_config(tmp_path)
    for section in ([], {"image_size": float("inf")}, {"image_size": None}):
        (tmp_path / "config.json").write_text(json.dumps(good | {"config": {"image": section}}))
        with pytest.raises(TrainingError, match=r"config\.json"):
            run_dir.read_run_config(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(TrainingError, match="holds no run"):
        run_dir.read_run_config(tmp_path / "nothing")


@pytest.mark.parametrize("change", [{"encoder_filters": "4,4,8,16"}, {"bn_epsilon": 0.01}])
def test_an_autoencoder_of_another_configuration_is_refused(tmp_path, change):
    """Fails if frozen networks are read with other constants, with which they decode something else."""
    run_dir.open_run(tmp_path, RunRecord("autoencoder", _config()))
    with pytest.raises(TrainingError, match=next(iter(change))):
        _check_autoencoder(_config().replace(**change), tmp_path)
    _check_autoencoder(_config(learning_rate=0.5), tmp_path)


def test_another_entry_of_a_record_is_named(tmp_path):
    """Fails if the message does not name the entry of a dictionary that differs, and no other."""
    protocol = {"steps": 3, "frozen": 0, "scales": [1.0, 1.6]}
    record = RunRecord("voc_classification", _config(), details={"protocol": protocol})
    run_dir.open_run(tmp_path, record)
    run_dir.open_run(tmp_path, record)
    with pytest.raises(TrainingError, match=r"another configuration \(protocol\.frozen: 0 -> 2\)\."):
        run_dir.open_run(tmp_path, dataclasses.replace(record, details={"protocol": {**protocol, "frozen": 2}}))
