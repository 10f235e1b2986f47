"""Flags from configuration fields, and `--help`.

A binary defines its flags into `absl.flags.FLAGS` in a function `define_flags`:

    with field_flags.group("Schedule"):
        field_flags.define(fields_named(TrainingConfig, "steps", "precision"), lambda: TrainingConfig())
"""

import contextlib
import dataclasses
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from absl import flags

from lts.config import fields
from lts.utils.registry import Registry

FLAGS = flags.FLAGS
COLUMNS = 80
NAMED_CONFIGURATIONS = ("preset", "protocol")  # flags that choose the defaults of other flags

PACKAGES = ("lts.", "experiments.")

# A function for each flag: it returns the object that has the flag's default as an attribute.
_CHOSEN: dict[flags.Flag, Callable[[], Any]] = {}


class _FieldParser(flags.ArgumentParser):
    """Parser of a field's number, list or registered name."""

    def __init__(self, field: dataclasses.Field):
        self.field = field

    def parse(self, argument: Any) -> Any:
        value = fields.cast(self.field, argument)
        fields.check_value(self.field, value)
        return value


def define(described: Iterable[dataclasses.Field], chosen: Callable[[], Any]) -> None:
    """Define a flag for each field.

    Args:
      described: fields of configuration dataclasses.
      chosen: returns the configuration that the other flags name. `--help` shows its values.
    """
    # NB: every default is None, so that a flag that was given can be told from one that was not.
    for field in described:
        text = field.metadata["help"]
        if field.metadata["ablation"]:
            text += " (for ablations only)"
        if field.metadata["choices"] and not isinstance(field.metadata["choices"], Registry):
            flags.DEFINE_enum(field.name, None, field.metadata["choices"], text)
        elif fields.element_type(field) is bool:
            flags.DEFINE_bool(field.name, None, text)
        else:
            flags.DEFINE(_FieldParser(field), field.name, None, text)
        _CHOSEN[FLAGS[field.name]] = chosen


def given(described: Iterable[dataclasses.Field]) -> dict[str, Any]:
    """Return the values that flags give to fields."""
    values = {field.name: FLAGS[field.name].value for field in described}
    return {name: value for name, value in values.items() if value is not None}


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """Give a title to the flags defined inside."""
    # absl lists key flags by module; a title with a colon stands for a module here.
    earlier = set(FLAGS)
    yield
    for name in FLAGS:
        if name not in earlier:
            FLAGS.register_key_flag_for_module(f"{title}:", FLAGS[name])


def help_text(docstring: str) -> str:
    """Return `--help`: the program's docstring, then flags."""
    lines = _wrapped_docstring(docstring)
    names = [name for name in NAMED_CONFIGURATIONS if name in FLAGS]
    if names and any(FLAGS[name] in _CHOSEN for name in FLAGS):
        name = names[0]
        chosen = FLAGS[name].value or "release"
        note = f"Defaults are those of --{name}={chosen}. --{name}=NAME --help shows those of another one."
        lines += ["", *textwrap.wrap(note, COLUMNS)]
    for title, members in _groups().items():
        lines += ["", title]
        for flag in members:
            lines += _flag_lines(flag)
    lines += ["", "--helpfull also lists the flags of absl, such as --flagfile."]
    return "\n".join(lines)


def _groups() -> dict[str, list[flags.Flag]]:
    """Return flags by title, ungrouped ones first."""
    by_key = FLAGS.key_flags_by_module_dict()
    groups = {title: members for title, members in by_key.items() if title.endswith(":")}
    grouped = {flag.name for members in groups.values() for flag in members}
    others = []
    for module, members in FLAGS.flags_by_module_dict().items():
        # Imported libraries define flags too; the main module has the name of its file.
        if module == sys.argv[0] or module.startswith(PACKAGES):
            others += [flag for flag in members if flag.name not in grouped]
    return {"Flags:": others, **groups}


def _flag_lines(flag: flags.Flag) -> list[str]:
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    # Without the flag, the chosen configuration decides, so its value is shown.
    default = flag.value
    if flag in _CHOSEN and default is None:
        default = getattr(_CHOSEN[flag](), flag.name, None)
    if isinstance(default, list | tuple):
        default = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in default)
    text = f"{name}: {' '.join(flag.help.split())}"
    if isinstance(flag.parser, _FieldParser) and flag.parser.field.metadata["choices"]:
        text += f": {fields.requirement(flag.parser.field)}"  # with what --import has added
    if default not in (None, ""):
        text += f" [{default:.6g}]" if isinstance(default, float) else f" [{default}]"
    return textwrap.wrap(text, COLUMNS, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _wrapped_docstring(docstring: str) -> list[str]:
    """Return a docstring's lines in 80 columns."""
    # Text is filled again. Indented lines are commands.
    lines = []
    for kind, block in itertools.groupby(docstring.strip().splitlines(), _line_kind):
        if kind == "text":
            lines += textwrap.wrap(" ".join(block), COLUMNS)
        elif kind == "command":
            lines += _wrapped_commands(list(block))
        else:
            lines.append("")
    return lines


def _line_kind(line: str) -> str:
    if not line.strip():
        return "empty"
    return "command" if line.startswith("    ") else "text"


def _wrapped_commands(block: list[str]) -> list[str]:
    """Return commands, broken by backslashes."""
    lines = []
    for command in re.sub(r"\\\n", "", "\n".join(block)).splitlines():
        parts = textwrap.wrap(
            " ".join(command.split()),
            COLUMNS - 2,
            initial_indent="    ",
            subsequent_indent="        ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += " \\\n".join(parts).splitlines()
    return lines
