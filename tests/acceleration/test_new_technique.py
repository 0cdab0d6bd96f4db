"""Follows docs/new_technique.md to the letter: its file, its preset, its use."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

import fastsam3d
from fastsam3d.diffusion import techniques
from fastsam3d.diffusion.registry import REGISTRY
from fastsam3d.errors import UserError

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "new_technique.md"


def blocks():
    """(language, content) of every code block."""
    return re.findall(r"```(\w+)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def preset(tmp_path, monkeypatch):
    """The document's file is found by itself; the preset is a path."""
    (language, code), (second, yaml), *_ = blocks()
    assert (language, second) == ("python", "yaml")
    folder = tmp_path / "techniques"
    folder.mkdir()
    (folder / "hold_steps.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(techniques, "__path__", [*techniques.__path__, str(folder)])
    techniques.discover()
    path = tmp_path / "hold_steps.yaml"
    path.write_text(yaml, encoding="utf-8")
    yield path
    REGISTRY.remove("hold_steps")
    del sys.modules["fastsam3d.diffusion.techniques.hold_steps"]


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


@pytest.fixture
def half_tokens(tmp_path, monkeypatch):
    """The second technique, in a module outside of the package that its user imports."""
    (tmp_path / "my_half_tokens.py").write_text(blocks()[3][1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("my_half_tokens")
    yield
    REGISTRY.remove("half_tokens")
    del sys.modules["my_half_tokens"]


@pytest.mark.parametrize("preset", ["off", "exact"])
def test_the_example_computes_half_of_the_tokens(pipeline, picture, half_tokens, preset):
    with fastsam3d.accelerate(pipeline, preset):
        whole = pipeline.run(*picture, seed=1)
    seen = []
    for block in pipeline.models["slat_generator"].reverse_fn.backbone.blocks:
        seen.append([])
        block.mlp.register_forward_pre_hook(lambda _, given, seen=seen[-1]: seen.append(given[0].shape[1]))
    with fastsam3d.accelerate(pipeline, preset, half_tokens=True) as acceleration:
        half = pipeline.run(*picture, seed=1)
        stage = acceleration.report().stages["structured_latent"]
    cells = len((whole.structure.coords[:, 1:] // 2).unique(dim=0))
    # Nine steps without skips; from the fourth on every other token, of odd and of even number in turn.
    passes = [2 if guided else 1 for guided in guided_steps(pipeline.models["slat_generator"])]
    odd, even = cells // 2, cells - cells // 2
    expected = [cells, cells, cells, odd, even, odd, even, odd, even]
    assert [sum(blocks_seen) for blocks_seen in seen] == [sum(p * n for p, n in zip(passes, expected, strict=True))] * 2
    assert stage.tokens_computed == sum(seen[0])
    assert stage.tokens_possible == sum(passes) * cells
    assert torch.equal(half.structure.coords, whole.structure.coords)
    change = float((half.feats - whole.feats).norm() / whole.feats.norm())
    assert 1e-4 < change < 0.5


def guided_steps(generator):
    return [generator.reverse_fn.is_guided(time) for time in generator.times()[:-1]]
