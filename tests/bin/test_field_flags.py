"""Flags of lists of paths."""

import pytest
from absl import flags

from lts.bin import field_flags


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a", ["a"]),
        ("a, b", ["a", "b"]),
        ("one, two", ["one, two"]),
        ("a,one, two,b", ["a", "one, two", "b"]),
        ("one,two", ["one", "two"]),
    ],
)
def test_paths_may_hold_commas(tmp_path, monkeypatch, text, expected):
    """Fails if a path with a comma is taken for two, or two paths for one."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "one, two"):
        (tmp_path / name).mkdir()
    values = flags.FlagValues()
    monkeypatch.setattr(field_flags.flags, "FLAGS", values)
    flags.DEFINE(field_flags._PathsParser(), "baseline", [], "", values)
    values(["program", f"--baseline={text}"])
    assert values.baseline == expected
