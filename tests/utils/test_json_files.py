"""JSON files of another shape than expected."""

import os

import pytest

from lts.utils.json_files import NUMBER, JsonError, check_shape, read_json, read_json_lines

SHAPE = {"name": str, "steps": int, "rate": NUMBER, "layers": [{"size": int}], "seconds": {str: NUMBER}, "seed?": int}
GOOD = {"name": "a", "steps": 3, "rate": 0.5, "layers": [{"size": 1}], "seconds": {"x": 1}}


def test_values_of_the_right_shape():
    """Fails if a file that this project writes is refused."""
    check_shape(GOOD, SHAPE, "file")
    check_shape({**GOOD, "seed": None, "more": []}, SHAPE, "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 5}, "file: name must be text. Received: 5"),
        ({"steps": "3"}, "file: steps must be an integer. Received: '3'"),
        ({"steps": True}, "file: steps must be an integer. Received: True"),
        ({"steps": 3.0}, "file: steps must be an integer. Received: 3.0"),
        ({"rate": float("inf")}, "file: rate must be a number. Received: inf"),
        ({"layers": {}}, "file: layers must be a list. Received: an object"),
        ({"layers": [{"size": 1}, {}]}, r"file lacks layers\[1\]\.size"),
        ({"seconds": {"x": None}}, r"file: seconds\.x must be a number"),
        ({"seed": "x"}, "file: seed must be an integer"),
    ],
)
def test_values_of_another_shape(change, message):
    """Fails if the message does not name the value."""
    with pytest.raises(JsonError, match=message):
        check_shape({**GOOD, **change}, SHAPE, "file")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b"\xff\xfe{}",
        b'{"x": Infinity}',
        b'{"x": NaN}',
        b'{"x": 1e999}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"x": ' + b"9" * 10_000 + b"}",
    ],
)
def test_damaged_files_are_named(tmp_path, content):
    """Fails if a damaged file gives another error than one that names it."""
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(JsonError, match=r"a\.json") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_json, read_json_lines])
def test_pipes_are_not_opened(tmp_path, read):
    """Fails if a named pipe in the place of a file stops a program forever."""
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(OSError, match="not a regular file"):
        read(tmp_path / "a.json")


def test_lines(tmp_path):
    """Fails if an incomplete last line is an error, or a damaged line is not."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n\n{"step": 2, "loss": NaN}\n{"ste')
    assert [line["step"] for line in read_json_lines(path, {"step": int})] == [1, 2]
    path.write_text('{"step": 1}\n{"step": "x"}\n')
    with pytest.raises(JsonError, match=r"metrics\.jsonl, line 2: step must be an integer"):
        read_json_lines(path, {"step": int})
