"""The description of a configuration field: checks, casts and messages."""

import dataclasses

import pytest

from lts.config import ConfigError
from lts.config.fields import CheckedFields, cast, field, fields_named


@dataclasses.dataclass(frozen=True)
class Example(CheckedFields):
    """One field of each kind."""

    steps: int = field(100, "training steps", minimum=1)
    fraction: float = field(0.5, "fraction", above=0, maximum=1)
    precision: str | None = field(None, "precision", choices=["float32", "bfloat16"])
    interval: tuple[float, ...] = field((0.5, 1.0), "interval", above=0, length=2, ascending=True)
    seeds: tuple[int, ...] = field((1,), "seeds", minimum=0, below=10, min_length=1, distinct=True)
    name: str = "example"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be at least 1. Received: steps=0"),
        ({"fraction": float("nan")}, "fraction must be in (0, 1]. Received: fraction=nan"),
        ({"precision": "float16"}, "precision must be float32 | bfloat16. Received: precision='float16'"),
        ({"interval": (1.0, 0.5)}, "interval must be 2 numbers in ascending order, each above 0."),
        ({"interval": (1.0,)}, "interval must be 2 numbers in ascending order, each above 0."),
        ({"seeds": (1, 1)}, "seeds must be 1 or more different numbers in ascending order, each in [0, 10)."),
        ({"seeds": ()}, "seeds must be 1 or more different numbers in ascending order, each in [0, 10)."),
        ({"seeds": (10,)}, "seeds must be 1 or more different numbers in ascending order, each in [0, 10)."),
    ],
)
def test_invalid_values(values, message):
    """Fails if a value outside of its description is accepted, or the message does not name what is allowed."""
    with pytest.raises(ConfigError) as error:
        Example(**values)
    assert str(error.value).startswith(message)


def test_valid_values():
    """Fails if a bound is taken as excluded, or None is refused where it is allowed."""
    example = Example(steps=1, fraction=1.0, precision=None, interval=(2.0, 2.0), seeds=(0, 9), name="")
    assert dataclasses.replace(example, precision="bfloat16").precision == "bfloat16"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("steps", "12", 12), ("fraction", "1e-3", 1e-3), ("interval", "0.5,1", (0.5, 1.0)), ("seeds", "3,1,3", (1, 3))],
)
def test_text_of_a_flag(name, text, value):
    """Fails if a flag's text is cast to another type, or repeated entries of a set are kept."""
    (described,) = fields_named(Example, name)
    assert cast(described, text) == value
