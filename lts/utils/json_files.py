"""JSON files that users may have changed or damaged, read with a check of their contents."""

import json
import math
import os
from typing import Any

from lts.utils.errors import UserError
from lts.utils.files import read_regular

NUMBER = (int, float)
TYPE_NAMES = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "an integer"}

MAX_RECEIVED = 60  # characters of a value in a message


class JsonError(UserError):
    """JSON file that cannot be read, or holds something else than expected."""


def read_json(path: str | os.PathLike, shape: Any = dict, finite: bool = True) -> Any:
    """Return the contents of a JSON file.

    Args:
      path: the file.
      shape: what the file must hold, see `check_shape`.
      finite: refuse NaN and infinity, which Python reads although JSON has no such numbers.

    Raises:
      JsonError: the file is no JSON, or holds something else.
      OSError: the file cannot be read.
    """
    values = parse_json(read_regular(path), str(path), finite)
    check_shape(values, shape, str(path))
    return values


def parse_json(text: bytes, name: str, finite: bool = True) -> Any:
    """Return JSON text as Python values; `JsonError` gives the `name`."""
    try:
        options: dict[str, Any] = {"parse_constant": _refuse, "parse_float": _finite_float} if finite else {}
        return json.loads(text.decode("utf-8"), **options)
    # UnicodeDecodeError and JSONDecodeError are ValueErrors; deep nesting exceeds the stack.
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise JsonError(f"{name} cannot be read as JSON ({reason}). Restore or remove it.") from None


def read_json_lines(path: str | os.PathLike, shape: Any = dict) -> list[Any]:
    """Return the values of a file with one JSON value per line.

    An incomplete last line, which a killed writer leaves, is skipped.

    Args:
      path: the file.
      shape: of each line, see `check_shape`.

    Raises:
      JsonError: a line is no JSON, or holds something else.
      OSError: the file cannot be read.
    """
    *lines, _ = read_regular(path).split(b"\n")
    values = []
    for number, line in enumerate(lines, start=1):
        name = f"{path}, line {number}"
        if line.strip():
            value = parse_json(line, name, finite=False)
            check_shape(value, shape, name)
            values.append(value)
    return values


def check_shape(value: Any, shape: Any, name: str) -> None:
    """Check the types in a JSON value.

    Args:
      value: the parsed value.
      shape: a type or a tuple of types; [shape] for a list of any length; {"key": shape} for an object with at least
        these keys, where "key?" may be missing or null; {str: shape} for an object with any keys.
      name: of the value in the message.

    Raises:
      JsonError: at the first difference.

    Example:
      >>> check_shape({"steps": "5"}, {"steps": int}, "plan.json")
      Traceback (most recent call last):
      lts.utils.json_files.JsonError: plan.json: steps must be an integer. Received: '5'
    """
    _check(value, shape, name, "")


def _check(value: Any, shape: Any, name: str, key: str) -> None:
    """Check one value, whose place in the file is `key`."""
    if isinstance(shape, list):
        _check_type(value, (list,), name, key)
        for number, entry in enumerate(value):
            _check(entry, shape[0], name, f"{key}[{number}]")
    elif isinstance(shape, dict):
        _check_type(value, (dict,), name, key)
        for part, part_shape in _parts(value, shape):
            place = f"{key}.{part}" if key else part
            if part not in value:
                raise JsonError(f"{name} lacks {place}. Restore or remove it.")
            _check(value[part], part_shape, name, place)
    else:
        _check_type(value, shape if isinstance(shape, tuple) else (shape,), name, key)


def _parts(value: dict, shape: dict) -> list[tuple[str, Any]]:
    """Return the keys of an object to check, with their shapes."""
    if str in shape:
        return [(key, shape[str]) for key in value]
    parts = []
    for key, part_shape in shape.items():
        plain = key.removesuffix("?")
        if plain == key or value.get(plain) is not None:
            parts.append((plain, part_shape))
    return parts


def _check_type(value: Any, types: tuple[type, ...], name: str, key: str) -> None:
    # NB: True is an integer in Python.
    matches = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if matches and isinstance(value, float):
        matches = math.isfinite(value)
    if not matches:
        wanted = "a number" if types == NUMBER else " or ".join(TYPE_NAMES[kind] for kind in types)
        received = TYPE_NAMES[type(value)] if isinstance(value, dict | list) else repr(value)[:MAX_RECEIVED]
        place = f"{name}: {key}" if key else name
        raise JsonError(f"{place} must be {wanted}. Received: {received}")


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _finite_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)
