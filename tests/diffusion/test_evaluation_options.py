"""Options of an evaluation: computed where they are declared, an error where not, refused where a host lacks them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.hosts.native.host import NativeHost
from fastsam3d.diffusion.registry import REGISTRY, register
from fastsam3d.diffusion.vocabulary import (
    SPARSE_STRUCTURE,
    STAGES,
    STRUCTURED_LATENT,
    GuidedVelocity,
    TechniqueConfig,
    setting,
    stages_setting,
)
from fastsam3d.errors import UserError


@dataclass(frozen=True)
class PartConfig(TechniqueConfig):
    enabled: bool = setting(False, "Switches the technique.")
    stages: str = stages_setting()


class Part:
    """Asks for a part of the network from a step on."""

    def __init__(self, trajectory, options, first=1):
        self.trajectory, self.options, self.first = trajectory, options, first

    def evaluate(self, x, step, evaluate):
        if step.index < self.first:
            return evaluate(x)
        answer = evaluate(x, **self.options(self.trajectory))
        # The layout alone comes without the shape.
        return GuidedVelocity({name: answer.conditional.get(name, value) for name, value in x.items()})


class WholeStep(Part):
    def evaluate(self, x, step, evaluate):
        return evaluate(x) if step.index < self.first else evaluate(x, **self.options(self.trajectory))

    def velocity(self, x, step, evaluate):
        return self.evaluate(x, step, evaluate).combined()


@pytest.fixture
def technique():
    """Registers a technique `part` for one test."""

    def add(options, needs=(), kind="evaluation", first=1, policy=Part, stages=STAGES):
        register(Technique("part", PartConfig, kind, stages, lambda c, t: policy(t, options, first), needs=needs))

    yield add
    REGISTRY.remove("part")


def first_tokens(count):
    return lambda trajectory: {"tokens": torch.arange(count)} if trajectory.cells is not None else {}


OPTIONS = {
    "tokens": (STRUCTURED_LATENT, first_tokens(2)),
    "subset": (STRUCTURED_LATENT, lambda trajectory: {"subset": torch.arange(2)}),
    "conditional_only": (SPARSE_STRUCTURE, lambda trajectory: {"conditional_only": True}),
    "layout_only": (SPARSE_STRUCTURE, lambda trajectory: {"layout_only": True}),
}


@pytest.mark.parametrize("kind", ["evaluation", "velocity"])
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_is_not_declared_is_an_error_at_the_call(pipeline, picture, technique, option, kind):
    stage, options = OPTIONS[option]
    technique(options, kind=kind, policy=Part if kind == "evaluation" else WholeStep)
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "exact", part={"enabled": True, "stages": stage}):
        with pytest.raises(UserError) as caught:
            pipeline.run(*picture, seed=1)
        for words in (f"part calls evaluate(x, {option}=...)", stage, f"needs=({option!r},)", "part.enabled=false"):
            assert words in str(caught.value)
    assert torch.equal(pipeline.run(*picture, seed=1).feats, plain.feats)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_declared_option_runs(pipeline, picture, technique, option):
    stage, options = OPTIONS[option]
    technique(options, needs=(option,))
    with accelerate(pipeline, "exact", part={"enabled": True, "stages": stage}) as acceleration:
        assert torch.isfinite(pipeline.run(*picture, seed=1).feats).all()
        counts = acceleration.report().stages[stage]
    evaluations = counts.unconditional_computed + counts.layout_evaluations
    assert evaluations != counts.conditional_computed or counts.tokens_kept < 1.0


@pytest.mark.parametrize("option", OPTIONS)
def test_a_host_that_lacks_it_refuses_before_anything_is_touched(pipeline, technique, monkeypatch, option):
    stage, options = OPTIONS[option]
    technique(options, needs=(option,))
    lacking = {s: tuple(c for c in offered if c != option) for s, offered in NativeHost.capabilities.items()}
    monkeypatch.setattr(NativeHost, "capabilities", lacking)
    before = dict(vars(pipeline))
    with pytest.raises(UserError, match=rf"part needs .*{stage} stage, which .* does not offer: set part"):
        accelerate(pipeline, "exact", part={"enabled": True, "stages": stage})
    assert vars(pipeline) == before


def test_paper_is_refused_by_a_host_without_latent_blocks(pipeline, monkeypatch):
    monkeypatch.setattr(NativeHost, "capabilities", {})
    with pytest.raises(UserError, match=r"token_carving needs .* does not offer: set token_carving.enabled=false"):
        accelerate(pipeline, "paper")


@pytest.mark.parametrize(
    ("preset", "method"), [("paper", "latent_blocks"), ("exact_layout", "stream_blocks"), ("magcache", "block_stack")]
)
def test_a_host_that_offers_blocks_and_lists_none_is_told(pipeline, monkeypatch, preset, method):
    monkeypatch.setattr(NativeHost, method, lambda self, *stage: [])
    before = dict(vars(pipeline))
    with pytest.raises(UserError, match=r"lists no transformer blocks.*capabilities"):
        accelerate(pipeline, preset)
    assert vars(pipeline) == before


def test_tokens_of_the_first_stage_are_an_error_and_those_of_the_second_alone_are_not(pipeline, picture, technique):
    technique(lambda trajectory: {"tokens": torch.arange(2)}, needs=("tokens",), policy=WholeStep)
    with (
        accelerate(pipeline, "exact", part=True),
        pytest.raises(UserError, match=r"sparse_structure stage.*are for the structured_latent stage"),
    ):
        pipeline.run(*picture, seed=1)
    REGISTRY.remove("part")
    technique(first_tokens(2), needs=("tokens",), policy=WholeStep)
    with accelerate(pipeline, "exact", part=True) as acceleration:
        pipeline.run(*picture, seed=1)
        stages = acceleration.report().stages
    assert stages[SPARSE_STRUCTURE].tokens_kept == 1.0 > stages[STRUCTURED_LATENT].tokens_kept


def test_options_that_ask_for_nothing_need_nothing(pipeline, picture, technique):
    nothing = {"tokens": None, "subset": None, "conditional_only": False, "layout_only": False}
    technique(lambda trajectory: nothing, policy=WholeStep)
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "off", part=True):
        assert torch.equal(pipeline.run(*picture, seed=1).feats, plain.feats)


@pytest.mark.parametrize(
    ("options", "needs", "error", "words"),
    [
        ({"tokens": torch.arange(2), "subset": torch.arange(2)}, ("tokens", "subset"), UserError, "different parts"),
        ({"voxels": torch.arange(2)}, (), TypeError, "no such option; known are tokens, subset"),
    ],
    ids=["two parts", "unknown"],
)
def test_options_that_make_no_sense(pipeline, picture, technique, options, needs, error, words):
    technique(lambda trajectory: options, needs, policy=WholeStep, stages=(STRUCTURED_LATENT,))
    with accelerate(pipeline, "exact", part=True), pytest.raises(error, match=words):
        pipeline.run(*picture, seed=1)


def test_a_run_without_known_tokens_is_an_error(pipeline, picture, technique, monkeypatch):
    monkeypatch.setattr(NativeHost, "index_makers", lambda self: [])
    asked = {"tokens": torch.arange(2)}
    technique(lambda trajectory: asked, ("tokens",), policy=WholeStep, stages=(STRUCTURED_LATENT,))
    with accelerate(pipeline, "off", part=True), pytest.raises(UserError, match=r"where trajectory\.cells is None"):
        pipeline.run(*picture, seed=1)


def test_needs_are_names_of_capabilities():
    with pytest.raises(ValueError, match=r"'part' needs 'token'; known are .*tokens"):
        register(Technique("part", PartConfig, "evaluation", STAGES, needs=("token",)))
    assert "part" not in REGISTRY


@pytest.mark.parametrize("preset", ["off", "exact"])
@pytest.mark.parametrize("kind", ["evaluation", "velocity"])
def test_tokens_of_which_nothing_is_kept_are_computed_and_counted(pipeline, picture, technique, preset, kind):
    """Two tokens are asked for from the first step on, and guidance begins in the middle of the run."""
    generator = pipeline.models["slat_generator"]
    generator.reverse_fn.interval = (500.0, 1000.0)
    technique(first_tokens(2), ("tokens",), kind, first=0, policy=WholeStep, stages=(STRUCTURED_LATENT,))
    seen = []
    mlp = generator.reverse_fn.backbone.blocks[0].mlp
    mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    with accelerate(pipeline, preset, part=True) as acceleration:
        result = pipeline.run(*picture, seed=1)
        stage = acceleration.report().stages[STRUCTURED_LATENT]
    cells = len((result.structure.coords[:, 1:] // 2).unique(dim=0))
    # Times are ninths: steps 0 to 4 are unguided, 5 to 8 guided. All tokens run where a branch runs for the first time.
    assert seen == [cells, 2, 2, 2, 2, cells, cells, *[2] * 6]
    assert stage.tokens_computed == sum(seen)
    assert stage.tokens_possible == len(seen) * cells
