"""Errors that users can cause and fix.

Binaries print such an error as one line without a traceback. This module imports no TensorFlow.
"""

import re

# The lines that TensorFlow puts before the reason of an error inside a graph.
PREAMBLE = r"Graph execution error:|Detected at node .*|<stack traces unavailable>|\s*$"
MAX_REASON_LENGTH = 300  # characters of a reason that spans several lines


class UserError(ValueError):
    """Wrong input, files or environment.

    The message says what is wrong, what was received, and what to do.

    Attributes:
      exit_status: status of the binary: 2 for wrong usage, 1 for everything else.
    """

    exit_status = 1


class ConfigError(UserError):
    """Invalid configuration or flag value."""

    exit_status = 2


class FormatError(UserError):
    """Unknown file or export format, or its package is missing."""

    exit_status = 2


def first_line(error: BaseException) -> str:
    """Return the reason of a library's error as one line.

    Names of TensorFlow operations are removed. An error without a message gives its type.
    """
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    lines = [line for line in text.strip().splitlines() if not re.match(PREAMBLE, line)]
    line = lines[0] if lines else type(error).__name__
    # A line that ends with a colon announces its reason on the next lines.
    if line.rstrip().endswith(":"):
        line = " ".join(" ".join(lines).split())[:MAX_REASON_LENGTH]
    without_function = re.sub(r"^\{\{function_node .*?\}\} ", "", line)
    return without_function.split(" [Op:")[0]
