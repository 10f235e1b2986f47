"""What the tests of the probes' binaries share."""

import json
import subprocess
import sys

import pytest
from absl import flags

SPLITS = ["--dataset=embedded", "--train_split=train[:100]", "--test_split=test[:50]"]


def run(binary, output, *arguments):
    """The binary's main with these flags, on the stand-ins; its results."""
    values = flags.FlagValues()
    binary.define_flags(values)
    required = [binary.__name__, "--model=runs/features", "--dataset=stand-in", f"--output={output}"]
    values([*required, "--dimensions=30", "--batch_size=7", *arguments])
    binary.main(values)
    return json.loads((output / "results.json").read_text())


def check_goes_on(binary, module, name, world, tmp_path, monkeypatch):
    """A run that stops in its third layer, started again, measures the missing ones alone and ends with the same."""
    whole, calls = getattr(module, name), []
    once = run(binary, tmp_path / "once", "--baseline=runs/a")

    def stops_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(module, name, stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(binary, tmp_path / "twice", "--baseline=runs/a")
    assert [path.name for path in (tmp_path / "twice").iterdir()] == ["partial.json"]
    used = world["models"]["runs/features"].calls
    twice = run(binary, tmp_path / "twice", "--baseline=runs/a")
    assert world["models"]["runs/features"].calls == used
    assert len(calls) == 5  # two, the stopped one, and the two that were missing
    assert {**once, "seconds": 0} == {**twice, "seconds": 0}
    assert not (tmp_path / "twice" / "partial.json").exists()


def process(binary, model, *arguments):
    """The binary in a process of its own, on a few images of the embedded set."""
    command = [sys.executable, "-m", f"experiments.{binary}", f"--model={model}", *SPLITS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def check_complaint(binary, model, arguments, status, message):
    """The binary ends with this status and one line, and writes nothing."""
    done = process(binary, model, "--output=nowhere", *arguments)
    assert done.returncode == status, done.stderr
    complaint = done.stderr.splitlines()[-1]  # TensorFlow may have said something before
    assert complaint.startswith(f"{binary}: ")
    assert message in complaint
    assert "Traceback" not in done.stderr
