"""Memory that this process may still use."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence

import psutil

MEMORY_FILES = (  # of control groups, versions 2 and 1: limit, used bytes, lines of memory.stat that can be given back
    ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


def free_memory() -> int:
    """Return the bytes that this process may still allocate."""
    free = psutil.virtual_memory().available
    # A container's control group, or one above it, may allow less than the machine has.
    for group in _control_groups():
        for names in MEMORY_FILES:
            with contextlib.suppress(OSError, ValueError):
                free = min(free, _free_in_group(group, *names))
    return free


def _control_groups() -> Iterator[pathlib.Path]:
    """Yield the folders of this process's control groups."""
    groups = [pathlib.PurePath("/")]
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            # Version 2 has one group without controllers.
            if not controllers or "memory" in controllers.split(","):
                groups += [pathlib.PurePath(path), *pathlib.PurePath(path).parents]
    for path in dict.fromkeys(groups):
        for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory"):
            yield pathlib.Path(mount + str(path))


def _free_in_group(group: pathlib.Path, limit: str, used: str, reclaimable: Sequence[str]) -> int:
    """Return the bytes that a control group may still allocate."""
    free = int((group / limit).read_text()) - int((group / used).read_text())
    for line in (group / "memory.stat").read_text().splitlines():
        name, value = line.split()
        # The page cache counts as used, but the kernel gives it back.
        if name in reclaimable:
            free += int(value)
    return free
