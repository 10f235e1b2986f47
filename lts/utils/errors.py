"""The errors that a user can cause; binaries show them as one line, without a traceback."""

import re

PREAMBLE = r"Graph execution error:|Detected at node .*|<stack traces unavailable>|\s*$"  # what TensorFlow begins with
LONGEST = 300  # characters of a reason that spreads over lines


class UserError(ValueError):
    """Something outside the program is wrong: the message says what, where, and what would be right.

    `exit_status` is what a binary ends with: 2 for wrong usage, 1 for the rest.
    """

    exit_status = 1


class ConfigError(UserError):
    """A configuration that cannot be: the message names the field, what came and what would be right."""

    exit_status = 2


class FormatError(UserError):
    """A file or export format that is unknown or whose package is missing."""

    exit_status = 2


def first_line(error: Exception) -> str:
    """Why a library failed, in one line, without TensorFlow's names of operations; its type where it says nothing."""
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    lines = [line for line in text.strip().splitlines() if not re.match(PREAMBLE, line)]
    line = next(iter(lines), type(error).__name__)
    if line.rstrip().endswith(":"):  # the reason comes below
        line = " ".join(" ".join(lines).split())[:LONGEST]
    return re.sub(r"^\{\{function_node .*?\}\} ", "", line).split(" [Op:")[0]
