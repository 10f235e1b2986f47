"""Where a result comes from: the machine and the code that made it."""

import os
import pathlib
import platform
import subprocess

import tensorflow as tf


def hardware() -> str:
    """The devices that this process computes on, for instance "2 cores of Intel(R) Xeon(R) Processor"."""
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    if gpus:
        names = [details.get("device_name", "GPU") for details in gpus]
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return f"{len(os.sched_getaffinity(0))} cores of {_processor()}"


def commit() -> str | None:
    """Hash of the checkout's commit, with "+" behind it if files were changed since; None outside of a checkout."""
    root = pathlib.Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = _git(root, "rev-parse", "--short=12", "HEAD")
        return found + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _processor() -> str:
    """The processor's name as Linux gives it, or its architecture."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
