"""Named choices that a user's modules can extend (ours).

Imports no TensorFlow.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lts.utils.errors import ConfigError, first_line

_IMPORTED: list[str] = []  # modules of --import, in order


class UnknownNameError(ConfigError):
    """A name that no entry has."""


class Registry:
    """Entries of one kind by name (ours).

    Existing entries are given as "module:attribute" and imported at their first use. Their names are therefore known
    without TensorFlow.

    Args:
      kind: what the entries are, for messages.
      places: name to "module:attribute".

    Example:
      >>> ENCODERS = Registry("encoder", {"json": "json:JSONEncoder"})
      >>> @ENCODERS.register("mine")
      ... class MyEncoder(ENCODERS["json"]):
      ...     pass
      >>> list(ENCODERS)
      ['json', 'mine']
    """

    def __init__(self, kind: str, places: Mapping[str, str]):
        self.kind = kind
        self._places = dict(places)
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[Any], Any]:
        """Return a decorator that adds an entry.

        Raises:
          ConfigError: the name is taken.
        """
        if name in self:
            raise ConfigError(f"the name of a {self.kind} must be new. Received: {name!r}. Known: {', '.join(self)}.")

        def add(entry: Any) -> Any:
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> Any:
        """Return the entry of a name; `UnknownNameError` if there is none."""
        if name not in self:
            raise UnknownNameError(f"unknown {self.kind}. Received: {name!r}. Known: {', '.join(self)}.")
        if name not in self._entries:
            module, _, attribute = self._places[name].partition(":")
            self._entries[name] = getattr(importlib.import_module(module), attribute)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._places or name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._places, *self._entries]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def import_module(name: str) -> None:
    """Import a module that registers entries.

    Args:
      name: as in an import statement. The working directory is searched after the usual places.

    Raises:
      ConfigError: the import fails, for any reason.
    """
    if "" not in sys.path:
        sys.path.append("")  # the working directory
    try:
        importlib.import_module(name)
    # NB: the code is the user's, so anything can be raised, SystemExit included.
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(f"the module cannot be imported. Received: --import={name} ({reason}).") from error
    if name not in _IMPORTED:
        _IMPORTED.append(name)


def imported_modules() -> tuple[str, ...]:
    """Return the modules of `import_module`."""
    return tuple(_IMPORTED)
