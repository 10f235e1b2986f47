"""One-line reasons of library errors."""

import pytest
import tensorflow as tf

from lts.utils.errors import first_line


def raised(function) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (any)
        function()
    return caught.value


def test_the_reason_not_tensorflows_preamble():
    """Fails if the line is the preamble of an error inside a graph."""
    decode = tf.function(lambda encoded: tf.io.decode_image(encoded))
    assert first_line(raised(lambda: decode(tf.constant("no picture")))).startswith("Unknown image file format")
    assert first_line(raised(lambda: tf.io.read_file("/nowhere"))) == "/nowhere; No such file or directory"


def test_other_errors():
    assert first_line(OSError(28, "No space left on device")) == "No space left on device"
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
