"""Hardware and commit that produced a result."""

import functools
import os
import pathlib
import platform
import subprocess


def hardware() -> str:
    """Return the devices of this process, such as "2 x NVIDIA H100"."""
    import tensorflow as tf  # slow to import; `lts.utils` works without it

    devices = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    names = [detail.get("device_name", "GPU") for detail in details]
    if names:
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return f"{cores()} cores of {_processor()}"


def cores() -> int:
    """Return the number of cores that this process may use."""
    # macOS and Windows have no `sched_getaffinity`.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def commit() -> str | None:
    """Return the commit of this checkout at the first call.

    Twelve hex digits, followed by "+" if tracked files were changed since; None outside of a git checkout, and
    where the package was copied into another repository. The binaries call it first when they start: a later `git pull`
    changes the checkout, but not the code that runs.
    """
    root = pathlib.Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        _git(root, "ls-files", "--error-unmatch", __file__)  # fails if the repository does not hold this package
        digits = _git(root, "rev-parse", "--short=12", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{digits}+" if changes else digits


def _git(root: pathlib.Path, *arguments: str) -> str:
    command = ["git", "-C", root, *arguments]
    # NB: a hook or a CI job sets GIT_DIR and other variables, which would name another repository than `root`.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=environment)
    return done.stdout.strip()


def _processor() -> str:
    """Return the processor's name on Linux, or its architecture."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
