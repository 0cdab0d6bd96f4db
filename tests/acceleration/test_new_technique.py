"""Follows docs/new_technique.md to the letter: its file, its preset, its use."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import fastsam3d
from fastsam3d.diffusion import techniques
from fastsam3d.errors import UserError

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "new_technique.md"


def blocks():
    """(language, content) of every code block."""
    return re.findall(r"```(\w+)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def preset(tmp_path, monkeypatch):
    """The document's file is found by itself; the preset is a path."""
    (language, code), (second, yaml), _ = blocks()
    assert (language, second) == ("python", "yaml")
    folder = tmp_path / "techniques"
    folder.mkdir()
    (folder / "hold_steps.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(techniques, "__path__", [*techniques.__path__, str(folder)])
    techniques.discover()
    path = tmp_path / "hold_steps.yaml"
    path.write_text(yaml, encoding="utf-8")
    yield path
    del techniques.REGISTRY["hold_steps"], sys.modules["fastsam3d.diffusion.techniques.hold_steps"]


def test_it_is_short():
    assert len(DOCUMENT.read_text(encoding="utf-8").splitlines()) < 60


def test_following_it_gives_a_working_technique(pipeline, picture, preset, capsys):
    image, mask = picture
    names = {"fastsam3d": fastsam3d, "pipeline": pipeline, "preset": preset, "image": image, "mask": mask}
    exec(blocks()[2][1], names)
    assert "hold_steps" in capsys.readouterr().out
    stages = names["acceleration"].report().stages
    # Nine steps, every third and the last: 0, 3, 6 and 8.
    assert [stage.conditional_computed for stage in stages.values()] == [4, 4]
    assert not names["acceleration"].active


def test_its_settings_are_checked_and_its_stacks_refused(pipeline, preset):
    with pytest.raises(UserError, match=r"hold_steps\.every is 0, out of range; allowed: 1 to 50"):
        fastsam3d.accelerate(pipeline, preset, hold_steps={"every": 0})
    with pytest.raises(UserError, match=r"hold_steps and step_caching|step_caching and hold_steps"):
        fastsam3d.accelerate(pipeline, preset, step_caching=True)
