"""The errors that a user can cause; binaries show them as one line, without a traceback."""

import re


class UserError(ValueError):
    """Something outside the program is wrong: the message says what, where, and what would be right.

    `exit_status` is what a binary ends with: 2 for wrong usage, 1 for the rest.
    """

    exit_status = 1


def first_line(error: Exception) -> str:
    """Why a library failed, in one line, without TensorFlow's names of operations; its type where it says nothing."""
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    line = next(iter(text.strip().splitlines()), type(error).__name__)
    return re.sub(r"^\{\{function_node .*?\}\} ", "", line).split(" [Op:")[0]
