"""One description of a configuration field.

Flags, `--help`, the checks and "which fields define the networks" all follow from it (this project).

    >>> @dataclasses.dataclass
    ... class Schedule:
    ...     steps: int = field(100, "training steps", minimum=1)
    >>> check_fields(Schedule(steps=0))
    Traceback (most recent call last):
    lts.utils.errors.ConfigError: steps must be at least 1. Received: steps=0
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from lts.utils.errors import ConfigError
from lts.utils.registry import Registry

LARGEST_INTEGER = 2**31 - 1  # TensorFlow's shapes and seeds hold 32 bits
TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def field(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] | Registry = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    length: int | None = None,
    min_length: int = 0,
    ascending: bool = False,
    distinct: bool = False,
    defines: Iterable[str] = (),
    ablation: bool = False,
) -> Any:
    """Describe a field of a configuration dataclass.

    Bounds hold for every entry of a tuple. A field of type `X | None` may also be None.

    Args:
      default: value of the field.
      help: one line, which is also the help of the flag.
      choices: allowed values. Those of a registry can grow.
      minimum: smallest allowed value.
      maximum: largest allowed value.
      above: lower bound that is excluded.
      below: upper bound that is excluded.
      length: number of entries of a tuple.
      min_length: smallest number of entries of a tuple.
      ascending: no entry of a tuple is below the one before.
      distinct: the entries of a tuple are a set. Flags may repeat them; they are stored in ascending order.
      defines: networks that another value of this field would change, see `differences`.
      ablation: the field exists for ablations only.
    """
    metadata = {
        "help": help,
        "choices": choices if isinstance(choices, Registry) else tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "below": below,
        "length": length,
        "min_length": min_length,
        "ascending": ascending,
        "distinct": distinct,
        "defines": tuple(defines),
        "ablation": ablation,
    }
    return dataclasses.field(default=default, metadata=metadata)


class CheckedFields:
    """Base of configuration dataclasses, which checks every field."""

    def __post_init__(self) -> None:
        check_fields(self)


def fields_named(section: type, *names: str) -> list[dataclasses.Field]:
    """Return the named fields; without names, all."""
    fields = dataclasses.fields(section)
    return [field for field in fields if not names or field.name in names]


def check_fields(section: Any) -> None:
    """Check every field of a configuration dataclass.

    Raises:
      ConfigError: at the first value that its description excludes.
    """
    for field in dataclasses.fields(section):
        # NB: a configuration from a file may name an entry of a module that is not imported here. Whoever needs the
        # entry gets the error of the registry; an exported model, for example, is loaded without it.
        if not isinstance(field.metadata.get("choices"), Registry):
            check_value(field, getattr(section, field.name))


def check_value(field: dataclasses.Field, value: Any) -> None:
    """Check one value against its field.

    Raises:
      ConfigError: the description excludes the value.
    """
    is_unset = value is None and _is_optional(field)
    if field.metadata and not is_unset and not _is_valid(field, value):
        advice = ". Give --import=MODULE for one of yours." if isinstance(field.metadata["choices"], Registry) else ""
        raise ConfigError(f"{field.name} must be {requirement(field)}. Received: {field.name}={value!r}{advice}")
    check_number(field.name, value)


def check_number(name: str, value: Any) -> None:
    """Check that numbers are finite and fit into TensorFlow's integers.

    Args:
      name: of the field or flag.
      value: any value, or a tuple of values.

    Raises:
      ConfigError: an infinite number, NaN, or an integer beyond 32 bits.
    """
    for entry in value if isinstance(value, tuple) else (value,):
        if isinstance(entry, float) and not math.isfinite(entry):
            raise ConfigError(f"{name} must be a finite number. Received: {name}={value!r}")
        if isinstance(entry, int) and abs(entry) > LARGEST_INTEGER:
            raise ConfigError(f"{name} must be an integer of 32 bits. Received: {name}={value!r}")


def _is_valid(field: dataclasses.Field, value: Any) -> bool:
    described = field.metadata
    # Bounds and choices hold for every entry, length and order for the tuple.
    entries = value if isinstance(value, tuple) else (value,)
    if not all(_in_bounds(field, entry) for entry in entries):
        return False
    if not isinstance(value, tuple):
        return True
    if len(value) < described["min_length"] or described["length"] not in (None, len(value)):
        return False
    if described["distinct"]:
        return list(value) == sorted(set(value))
    return not described["ascending"] or list(value) == sorted(value)


def _in_bounds(field: dataclasses.Field, entry: Any) -> bool:
    described = field.metadata
    if described["choices"] and entry not in described["choices"]:
        return False
    # NB: written so that NaN, which compares as False with everything, is outside of any bound.
    bounds = (
        described["minimum"] is None or entry >= described["minimum"],
        described["maximum"] is None or entry <= described["maximum"],
        described["above"] is None or entry > described["above"],
        described["below"] is None or entry < described["below"],
    )
    return all(bounds)


def requirement(field: dataclasses.Field) -> str:
    """Return what a field's values must be.

    Example:
      >>> @dataclasses.dataclass
      ... class Schedule:
      ...     steps: int = field(100, "training steps", minimum=1)
      >>> requirement(dataclasses.fields(Schedule)[0])
      'at least 1'
    """
    described = field.metadata
    if described["choices"]:
        return " | ".join(described["choices"])
    text = _bounds_text(described)
    if not is_tuple(field):
        return text
    number = described["length"] or f"{described['min_length']} or more"
    order = "different numbers" if described["distinct"] else "numbers"
    if described["distinct"] or described["ascending"]:
        order += " in ascending order"
    return f"{number} {order}, each {text}" if text else f"{number} {order}"


def _bounds_text(described: Mapping[str, Any]) -> str:
    """Return the bounds in words."""
    # For example "at least 1" or "in [0, 1)"; empty without bounds.
    low = described["minimum"] if described["above"] is None else described["above"]
    high = described["maximum"] if described["below"] is None else described["below"]
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low:g}" if described["above"] is None else f"above {low:g}"
    if low is None:
        return f"at most {high:g}" if described["below"] is None else f"below {high:g}"
    opening = "[" if described["above"] is None else "("
    closing = "]" if described["below"] is None else ")"
    return f"in {opening}{low:g}, {high:.12g}{closing}"


def cast(field: dataclasses.Field, value: Any) -> Any:
    """Return a value as its field's type.

    Args:
      field: of a configuration dataclass.
      value: a typed value, a value from JSON, or the text of a flag.

    Raises:
      ConfigError: the value is no such type.

    Example:
      >>> @dataclasses.dataclass
      ... class Schedule:
      ...     sides: tuple[int, ...] = field((128, 160), "pixels")
      >>> cast(dataclasses.fields(Schedule)[0], "128,192")
      (128, 192)
    """
    if value is None and _is_optional(field):
        return None
    kind = element_type(field)
    try:
        if not is_tuple(field):
            return _cast_entry(kind, value)
        entries = value.split(",") if isinstance(value, str) else value
        entries = [_cast_entry(kind, entry) for entry in entries]  # pyright: ignore[reportOptionalIterable]
    except (ValueError, KeyError, TypeError, OverflowError):  # the last one: int(infinity)
        wanted = f"a comma-separated list, each entry {TYPE_NAMES[kind]}" if is_tuple(field) else TYPE_NAMES[kind]
        raise ConfigError(f"{field.name} must be {wanted}. Received: {field.name}={value!r}") from None
    return tuple(sorted(set(entries))) if field.metadata["distinct"] else tuple(entries)


def _cast_entry(kind: type, value: Any) -> Any:
    if kind is bool:
        # NB: bool("False") is True, and 1 is no truth value here.
        if not isinstance(value, str | bool):
            raise TypeError
        return {"true": True, "false": False}[str(value).lower()]
    # NB: Python takes True for 1 and cuts 1.5 to 1; both would hide a mistake.
    if kind is int and not isinstance(value, str) and (isinstance(value, bool) or int(value) != value):
        raise ValueError
    if kind is str and not isinstance(value, str):
        raise ValueError
    return kind(value)


def is_tuple(field: dataclasses.Field) -> bool:
    """Return whether the values of a field are tuples."""
    return typing.get_origin(_without_none(field.type)) is tuple


def element_type(field: dataclasses.Field) -> type:
    """Return the type of a value or tuple entry."""
    kind = _without_none(field.type)
    return typing.get_args(kind)[0] if is_tuple(field) else kind


def _is_optional(field: dataclasses.Field) -> bool:
    return isinstance(field.type, types.UnionType)


def _without_none(kind: Any) -> Any:
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind
