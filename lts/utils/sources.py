"""Sources of a running program, which may change on disk (ours).

TensorFlow reads the source of a function when it first traces it, which may be hours after its module was imported.
After an edit or a `git pull` it would trace other code than that of the program, or fail. Imports no TensorFlow.
"""

import linecache
import sys
import sysconfig
from typing import Any

PACKAGES = ("lts", "experiments")
LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))

_lines: dict[str, list[str]] = {}  # of the kept sources, by file
_read_from_disk = linecache.updatecache


def begin() -> None:
    """Let `keep` have an effect; called by the binaries.

    A notebook may edit a module and import it again, so there sources are always read anew.
    """
    linecache.updatecache = _update


def keep() -> None:
    """Keep the sources of the modules that are loaded, without those of libraries, as they are now."""
    if linecache.updatecache is not _update:
        return
    for name, module in tuple(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        is_library = path.startswith(LIBRARIES) and name.partition(".")[0] not in PACKAGES
        if path.endswith(".py") and path not in _lines and not is_library:
            _lines[path] = _read_from_disk(path)
            _update(path)


def changed_file() -> str | None:
    """Return a kept source that is different on disk now, or None."""
    for path, lines in _lines.items():
        current = _read_from_disk(path)
        _update(path)  # reading has replaced the entry of the cache
        if current != lines:
            return path
    return None


def _update(path: str, module_globals: dict[str, Any] | None = None) -> list[str]:
    """Return the lines of a file; replaces `linecache.updatecache`."""
    # NB: TensorFlow calls it before it reads a source, so that an entry of the cache alone would not last.
    if path not in _lines:
        return _read_from_disk(path, module_globals)
    lines = _lines[path]
    # Without a time of change the entry is never compared with the file.
    linecache.cache[path] = (sum(map(len, lines)), None, lines, path)
    return lines
