"""Which techniques compose, and how those that do not are refused."""

from __future__ import annotations

import pytest

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.acceleration.presets import load_preset
from fastsam3d.diffusion.hosts.native.host import NativeHost
from fastsam3d.errors import UserError

REFUSED = [
    ({"step_caching": True, "taylorseer": True}, ["sparse-structure network runs", "taylorseer.stages"]),
    ({"adaptive_caching": True, "latent_step_caching": True}, ["latent network runs"]),
    ({"adaptive_caching": True, "easycache": {"enabled": True, "stages": "structured_latent"}}, ["easycache.enabled"]),
    ({"token_carving": True, "guidance_reuse": True}, ["how the latent network is evaluated"]),
    ({"token_aggregation": True, "uniform_merge": True}, ["set of voxels"]),
    ({"random_drop": True, "released_aggregation": True}, ["set of voxels"]),
    ({"fewer_steps": True, "few_step_shortcut": True}, ["number of steps"]),
    ({"token_carving": True, "first_block_cache": True}, ["all tokens"]),
    ({"taylorseer": True, "first_block_cache": True}, ["earlier steps"]),
    ({"few_step_shortcut": True, "step_caching": True}, ["distilled mode"]),
    ({"few_step_shortcut": True, "guidance_reuse": True}, ["distilled mode"]),
    ({"fast3dcache": True, "guidance_reuse": True}, ["some tokens alone"]),
    ({"fast3dcache": True, "exact_layout": True}, ["some tokens alone"]),
    ({"released_latent_caching": True, "token_carving": True}, ["some tokens alone"]),
]
ALLOWED = [
    {"taylorseer": {"enabled": True, "stages": "sparse_structure"}, "adaptive_caching": True, "token_carving": True},
    {"hicache": True, "exact_layout": True, "token_aggregation": True},
    {"easycache": True, "guidance_reuse": True, "uniform_merge": True},
    {"step_caching": True, "first_block_cache": {"enabled": True, "stages": "structured_latent"}},
    {"few_step_shortcut": True, "adaptive_caching": True, "token_carving": True},
    {"fewer_steps": True, "step_caching": True},
    {"fast3dcache": True, "token_carving": True, "random_drop": True},
    {"guidance_reuse": {"enabled": True, "stages": "sparse_structure"}, "token_carving": True},
]


@pytest.mark.parametrize(("settings", "words"), REFUSED, ids=lambda value: "+".join(value))
def test_clashes_name_both_say_why_and_the_way_out(settings, words):
    with pytest.raises(UserError) as caught:
        load_preset("off", settings)
    message = str(caught.value)
    for word in [*settings, *words, "enabled=false"]:
        assert word in message, message


@pytest.mark.parametrize("settings", ALLOWED, ids="+".join)
def test_different_kinds_and_stages_compose(settings):
    assert set(settings) <= {name.partition(".")[0] for name in load_preset("off", settings).enabled}


def test_exact_layout_needs_something_to_wrap():
    with pytest.raises(UserError, match=r"nothing forecasts .*step_caching.enabled=true"):
        load_preset("off", {"exact_layout": True})
    with pytest.raises(UserError, match="nothing forecasts"):
        load_preset("off", {"exact_layout": True, "adaptive_caching": True})  # that is the other stage


def test_a_clash_leaves_the_pipeline_and_its_acceleration_alone(pipeline):
    first = accelerate(pipeline, "balanced")
    before = dict(vars(pipeline))
    with pytest.raises(UserError):
        accelerate(pipeline, "balanced", taylorseer=True)
    assert first.active
    assert vars(pipeline) == before
    first.remove()


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("exact_layout", "exact_layout needs evaluations of the layout alone"),
        ("guidance_reuse", "guidance_reuse needs evaluations without their unconditional pass"),
        ("first_block_cache", "first_block_cache needs access to the stack"),
        ("few_step_shortcut", "few_step_shortcut needs a distilled few-step mode"),
        ("paper_release", "released_latent_caching needs evaluations of some tokens alone"),
    ],
)
def test_a_host_that_lacks_something_is_named_with_the_technique(pipeline, monkeypatch, preset, words):
    monkeypatch.setattr(NativeHost, "capabilities", {})
    before = dict(vars(pipeline))
    with pytest.raises(UserError) as caught:
        accelerate(pipeline, preset)
    assert words in str(caught.value)
    assert NativeHost.name in str(caught.value)
    assert vars(pipeline) == before


def test_the_stage_that_would_do_is_named(pipeline, monkeypatch):
    offered = {"sparse_structure": ("block_stack",), "structured_latent": ()}
    monkeypatch.setattr(NativeHost, "capabilities", offered)
    with pytest.raises(UserError, match=r"enabled=false, or magcache\.stages=sparse_structure\."):
        accelerate(pipeline, "magcache")
    accelerate(pipeline, "magcache", **{"magcache.stages": "sparse_structure"}).remove()


def test_a_plain_host_still_takes_what_needs_nothing(pipeline, monkeypatch):
    monkeypatch.setattr(NativeHost, "capabilities", {})
    for preset in ("taylorseer", "easycache", "dmd", "uniform_merge", "balanced", "fewer_steps"):
        acceleration = accelerate(pipeline, preset)
        assert acceleration.active
        acceleration.remove()
