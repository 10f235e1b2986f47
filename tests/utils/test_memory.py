"""Free memory, also in containers."""

import pathlib

import pytest

from lts.utils.memory import free_memory


def test_free_memory_is_a_number_of_bytes():
    assert 2**20 < free_memory() < 2**50


GROUPS = {
    "version 2": {
        "/sys/fs/cgroup/job/memory.max": "8000000",
        "/sys/fs/cgroup/job/memory.current": "7900000",
        "/sys/fs/cgroup/job/memory.stat": "anon 500000\ninactive_file 7000000\nactive_file 300000\nslab_reclaimable 5",
        "/proc/self/cgroup": "0::/job/step\n",
    },
    "version 1": {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "8000000",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": "7900000",
        "/sys/fs/cgroup/memory/memory.stat": "cache 9\ntotal_inactive_file 7000000\ntotal_active_file 300005",
        "/proc/self/cgroup": "9:cpu:/\n3:memory:/\n",
    },
}


@pytest.mark.parametrize("version", GROUPS)
def test_the_page_cache_of_a_container_is_free(monkeypatch, version):
    """Fails if cached files count as used memory, or if the limit of a group above the process's is missed."""

    def read_text(path, *_):
        if str(path) not in GROUPS[version]:
            raise FileNotFoundError(path)
        return GROUPS[version][str(path)]

    monkeypatch.setattr(pathlib.Path, "read_text", read_text)
    assert free_memory() == 100_000 + 7_300_005
