"""The wheel outside of a checkout."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = re.findall(r'"(lts-[a-z-]+) = lts\.bin\.(\w+):console"', (ROOT / "setup.py").read_text(encoding="utf-8"))


def test_every_program_is_a_script():
    """Fails if a program of `lts.bin` has no console script."""
    programs = {path.stem for path in (ROOT / "lts" / "bin").glob("[!_f]*_*.py")}
    assert {module for _, module in SCRIPTS} == programs
    assert all(script == f"lts-{module.replace('_', '-')}" for script, module in SCRIPTS)


@pytest.mark.slow
def test_scripts_of_the_wheel(tmp_path):
    """Fails if a script needs the checkout or lacks a description, or the wheel lacks its types and its note."""
    pytest.importorskip("setuptools", reason="builds a wheel")
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(ROOT / "lts", source / "lts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    site = tmp_path / "site"
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", site, source]
    subprocess.run(pip, check=True, cwd=tmp_path, timeout=600)
    assert (site / "lts" / "py.typed").exists()
    (metadata,) = site.glob("lts-*.dist-info/METADATA")
    assert "The programs of `experiments` run from a checkout." in metadata.read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(site)}
    for script, _ in SCRIPTS:
        command = [sys.executable, site / "bin" / script, "--help"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert (done.returncode, done.stderr) == (0, ""), script
        first_line = done.stdout.splitlines()[0]
        assert re.fullmatch(r"[A-Z].{10,}\.", first_line), done.stdout
        assert str(ROOT) not in done.stdout
