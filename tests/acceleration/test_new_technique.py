"""Follows docs/new_technique.md to the letter: its file, its preset, its use."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

import fastsam3d
from fastsam3d.acceleration.presets import load_preset
from fastsam3d.diffusion import techniques
from fastsam3d.diffusion.exact.saving import remove_saving
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


@pytest.fixture
def shared_modulation(tmp_path, monkeypatch):
    """The exact saving, in a module outside of the package that its user imports."""
    (tmp_path / "my_shared_modulation.py").write_text(blocks()[4][1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("my_shared_modulation")
    yield
    remove_saving("shared_modulation")
    del sys.modules["my_shared_modulation"]


def modulation_layers(pipeline, stage):
    """The linear layers of a stage's modulation, found by their names in the network and not by the host."""
    backbone = pipeline.models[stage].reverse_fn.backbone
    return [
        layer
        for name, layer in backbone.named_modules()
        if isinstance(layer, torch.nn.Linear) and ("adaLN_modulation" in name or "emb_layers" in name)
    ]


def test_the_saving_of_the_example_gives_equal_results_and_is_counted(pipeline, picture, shared_modulation):
    image, mask = picture
    with fastsam3d.accelerate(pipeline, "off"):
        plain = pipeline.run(image, mask, seed=1)
    untouched = [dict(vars(module)) for module in pipeline.models.modules()]
    calls = {}
    stages = {"sparse_structure": "ss_generator", "structured_latent": "slat_generator"}
    for model in stages.values():
        for layer in modulation_layers(pipeline, model):
            calls[layer] = []
            layer.register_forward_hook(lambda layer, given, out: calls[layer].append(len(out)))
    names = {"fastsam3d": fastsam3d, "pipeline": pipeline, "image": image, "mask": mask}
    exec(blocks()[5][1], names)
    kept, report = names["result"], names["acceleration"].report()
    assert torch.equal(kept.feats, plain.feats)
    assert torch.equal(kept.structure.coords, plain.structure.coords)
    assert report.techniques == ("exact.shared_modulation",)
    expected = 0
    for stage, model in stages.items():
        counts = report.stages[stage]
        assert counts.unconditional_computed > 0
        for layer in modulation_layers(pipeline, model):
            # One row a pass; the unconditional passes compute none.
            assert calls[layer] == [1] * counts.conditional_computed
            expected += 2 * layer.in_features * layer.out_features * counts.unconditional_computed
    assert names["saved"] == pytest.approx(expected)
    for layer in calls:
        layer._forward_hooks.clear()
    after = [dict(vars(module)) for module in pipeline.models.modules()]
    assert [attributes.keys() for attributes in after] == [attributes.keys() for attributes in untouched]


def test_the_saving_of_the_example_is_a_switch_like_the_others(pipeline, picture, shared_modulation):
    assert fastsam3d.accelerate(pipeline, "exact").config["exact"].shared_modulation
    assert "shared_modulation" not in load_preset("off", {}).enabled
    with pytest.raises(UserError, match=r"exact\.shared_modulation"):
        fastsam3d.accelerate(pipeline, "exact", exact={"shared_modulation": "often"})
    # Beside all others: where both branches pass together, and where `time_tables` needs no modulation at all.
    for tables in (True, False):
        runs = []
        for switch in (False, True):
            switches = {"time_tables": tables, "shared_modulation": switch}
            with fastsam3d.accelerate(pipeline, "exact", exact=switches) as acceleration:
                runs.append((pipeline.run(*picture, seed=1).feats, acceleration.report().savings()))
        (feats, without), (kept, with_it) = runs
        torch.testing.assert_close(kept, feats, rtol=1e-4, atol=1e-5)
        saved = 0.0 if tables else with_it["flop_by_exact_saving"]["shared_modulation"]
        assert with_it["flop"]["computed"] == pytest.approx(without["flop"]["computed"] - saved, rel=1e-9)
        assert tables or saved > 0


def test_a_saving_that_was_removed_has_no_switch():
    assert "shared_modulation" not in load_preset("exact", {}).to_dict()["exact"]
