"""Several machines: two processes on loopback against one."""

import json
import signal
import socket
import subprocess

import pytest

from tests.fixtures import runs

MODULE = "lts.bin.train_autoencoder"
STEPS = 120


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> tuple:
    """Of every run here, without the workdir."""
    photos = runs.make_photos(tmp_path_factory.mktemp("photos") / "photos")
    return (*runs.BASE, f"--dataset=folder:{photos}", f"--steps={STEPS}", "--log_steps=20")


@pytest.fixture(scope="module")
def one_machine(flags, tmp_path_factory) -> tuple:
    """The workdirs of a run in one process and of its controls."""
    folder = tmp_path_factory.mktemp("one_machine")
    for index, (given, environment) in enumerate([(flags, {}), *runs.other_rounding(flags)]):
        done = runs.run(MODULE, *given, f"--workdir={folder / str(index)}", **environment)
        assert done.returncode == 0, done.stderr
    alone, *controls = sorted(folder.iterdir())
    return alone, controls


def start_machines(*flags: str, other: tuple = ()) -> list[subprocess.Popen]:
    """Two machines with the same flags, the chief first; `other` go to the second alone."""
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{one.getsockname()[1]}" for one in (first, second)]}
    tasks = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)]
    return [
        runs.start(MODULE, *flags, *extra, TF_CONFIG=json.dumps(task), CUDA_VISIBLE_DEVICES="-1")
        for task, extra in zip(tasks, ((), other), strict=True)
    ]


@pytest.mark.parametrize("lost", ["other", pytest.param("chief", marks=pytest.mark.slow)])
def test_a_lost_machine_and_the_end_equal_one_machine(flags, one_machine, tmp_path, lost):
    """A machine is killed, the other reports it and ends; both resume and end where one process ends."""
    many = tmp_path / "many"
    chief, other = start_machines(*flags, f"--workdir={many}", "--checkpoint_minutes=0")
    dead, left = (chief, other) if lost == "chief" else (other, chief)
    for line in chief.stdout:
        if "step 60/" in line:
            dead.kill()
            break
    _, err = left.communicate(timeout=600)
    assert left.returncode == 1, err
    assert "another machine was lost" in err
    assert "step_0000" in err
    assert err.count("\n") == 1, err
    dead.communicate()

    machines = start_machines(*flags, f"--workdir={many}")
    for machine in machines:
        _, err = machine.communicate(timeout=600)
        assert machine.returncode == 0, err
    assert [line["step"] for line in runs.metrics(many)] == list(range(20, STEPS + 1, 20))
    assert runs.are_close(many, *one_machine) == {"weights": True, "metrics": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(("--reconstruction_weight=60", "--weight_decay=1e-4"), id="summed-twice"),
        pytest.param(("--batch_size=2",), id="one-share"),
    ],
)
def test_wrong_gradient_is_found(flags, one_machine, tmp_path, wrong):
    """Fails if the allowed differences let a run pass that doubles its gradient, or that sees half of the images."""
    done = runs.run(MODULE, *flags, *wrong, f"--workdir={tmp_path / 'wrong'}")
    assert done.returncode == 0, done.stderr
    assert runs.are_close(tmp_path / "wrong", *one_machine) == {"weights": False, "metrics": False}


@pytest.mark.slow
def test_a_signal_to_one_machine_stops_all_with_a_checkpoint(flags, tmp_path):
    """Machines that do not agree where to stop wait for each other for ever."""
    workdir = tmp_path / "many"
    chief, other = start_machines(*flags, "--steps=100000", f"--workdir={workdir}")
    for line in chief.stdout:
        if "step 40/" in line:
            other.send_signal(signal.SIGTERM)
            break
    outputs = [machine.communicate(timeout=600) for machine in (chief, other)]
    assert [machine.returncode for machine in (chief, other)] == [143, 143], outputs
    step = int(runs.newest(workdir)["optimizer/iteration"])
    assert step >= 40
    assert all(f"stopped: {step} of" in out for out, _ in outputs)


@pytest.mark.slow
def test_machines_with_different_flags_are_refused(flags, tmp_path):
    """Another seed on one machine, or lines at other steps, at which one would wait for the other for ever."""
    for flag, what in (("--seed=2", "configuration"), ("--log_steps=19", "intervals")):
        for machine in start_machines(*flags, f"--workdir={tmp_path / what}", other=(flag,)):
            _, err = machine.communicate(timeout=600)
            assert machine.returncode == 1
            assert f"do not have the same {what}" in err
            assert err.count("\n") == 1
