"""A Python without the dependencies: one line that says which Python to use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastsam3d.cli.interpreter import REQUIRED, old_python, way_out, wrong_python

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = {"hydra": "hydra-core", "PIL": "pillow"}
"""What pip calls the modules whose names differ."""


def test_required_modules_are_those_of_the_project():
    tomllib = pytest.importorskip("tomllib", reason="Python below 3.11 has no tomllib")
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert {DISTRIBUTIONS.get(name, name) for name in REQUIRED} == {line.partition(">")[0] for line in lines}


@pytest.mark.parametrize(
    "words",
    [
        ["infer.py"],
        ["infer_scene.py"],
        ["gradio_demo.py"],
        ["-m", "fastsam3d", "infer"],
        ["-m", "fastsam3d", "presets"],
    ],
)
def test_without_dependencies_every_door_says_one_line(words):
    # Without `site` there are no installed packages, as in a new environment.
    done = subprocess.run([sys.executable, "-S", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert line.startswith(f"error: this Python ({sys.executable}) does not have ")
    assert "instead." in line or "Install it first" in line


def test_the_way_out_is_the_environment_of_make_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "pip install --force-reinstall" in way_out(tmp_path)  # an installed package, not a source tree
    (tmp_path / "pyproject.toml").touch()
    assert "make demo" in way_out(tmp_path) and str(tmp_path) in way_out(tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert way_out(tmp_path) == "Use .venv/bin/python instead."
    monkeypatch.setattr(sys, "executable", str(python))  # it is the one that runs, and it is not whole
    assert "make demo" in way_out(tmp_path)


def test_other_missing_modules_are_no_matter_of_the_interpreter():
    assert wrong_python(ModuleNotFoundError("no", name="fastsam3d.nothing")) is None
    assert "trimesh" in (wrong_python(ModuleNotFoundError("no", name="trimesh.visual")) or "")


def test_an_old_python_is_told(monkeypatch):
    assert old_python() is None
    monkeypatch.setattr(sys, "version_info", (3, 8, 10))
    assert "is 3.8, and fastsam3d needs 3.10" in (old_python() or "")
