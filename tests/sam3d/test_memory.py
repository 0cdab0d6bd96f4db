"""Memory budgets: what is counted, what is chosen, what is refused; and weights that come and go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints.loading import load_pipeline, model_config
from fastsam3d.sam3d.memory.budget import (
    BUDGETS,
    GIB,
    PLANS,
    RESERVE,
    MemoryLimit,
    budget_bytes,
    choose_plan,
    estimate_peak,
)
from fastsam3d.sam3d.memory.costs import weight_bytes
from fastsam3d.sam3d.memory.residency import StagedWeights
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.pipeline.pipeline import Pipeline


@pytest.fixture(scope="module")
def official() -> ModelConfig:
    return model_config("sam3d")


def test_weights_are_counted_as_published(official: ModelConfig) -> None:
    full = weight_bytes(official, ("mesh", "gaussian"), "float32")
    # Parameters of the official checkpoints; buffers (positions, offsets) come on top, 16 MiB at most.
    for name, parameters in (("ss_generator", 959_962_133), ("slat_generator", 600_432_520)):
        assert 4 * parameters <= full[name] <= 4 * parameters + 2**24
    half = weight_bytes(official, ("mesh", "gaussian"), "float16")
    assert 0.49 < sum(half.values()) / sum(full.values()) < 0.52
    assert "slat_decoder_gs" not in weight_bytes(official, ("mesh",), "float16")


@pytest.mark.parametrize("memory", ["8gb", "12gb", "24gb"])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_typical_object_fits_every_budget(official: ModelConfig, memory: str, precision: str) -> None:
    need = estimate_peak(official, memory, precision=precision)
    assert need.fits
    assert need.peak <= BUDGETS[memory] - RESERVE


def test_graphs_stay_through_all_stages(official: ModelConfig) -> None:
    plain, graphs = (estimate_peak(official, precision="float16", cuda_graphs=on).stages for on in (False, True))
    added = {stage: graphs[stage] - plain[stage] for stage in plain}
    # Keys and values of 7,528 condition tokens in 24 blocks of two streams, in half precision; the first stage has them
    # in any case. Beside them the condition, and a quarter of a GiB of activations of both branches.
    keys_and_values = 24 * 2 * 7528 * 2 * 1024 * 2
    assert len({size for stage, size in added.items() if stage != "sparse_structure"}) == 1
    assert added["mesh_decode"] - added["sparse_structure"] == keys_and_values
    assert 0.2 * GIB < added["sparse_structure"] < 0.35 * GIB
    staged = replace(PLANS[1], budget=None)
    moved = [estimate_peak(official, plan=staged, cuda_graphs=on).stages for on in (False, True)]
    assert moved[0] == moved[1]


@pytest.mark.parametrize(
    ("memory", "precision", "room"),
    [("8gb", "float16", False), ("12gb", "float16", False), ("24gb", "float16", True), ("none", "float32", True)],
)
def test_graphs_need_room_beside_the_largest_object(
    official: ModelConfig, memory: str, precision: str, room: bool
) -> None:
    budget = budget_bytes(memory)
    formats = ("mesh", "gaussian")
    plan = PLANS[0] if budget is None else choose_plan(official, memory, budget, formats=formats, precision=precision)
    assert MemoryLimit(official, memory, formats, precision, plan).has_room_for_graphs() == room


def test_plans_are_no_slower_than_they_have_to_be(official: ModelConfig) -> None:
    def plan(memory: str, precision: str):
        budget = budget_bytes(memory)
        return choose_plan(official, memory, budget, formats=("mesh", "gaussian"), precision=precision)

    assert not plan("24gb", "float32").staged
    assert not plan("12gb", "float16").staged
    assert plan("8gb", "float16").overlap
    assert plan("8gb", "float32").staged
    assert not plan("8gb", "float32").overlap


def test_staging_and_no_cache_need_less(official: ModelConfig) -> None:
    peaks = [estimate_peak(official, precision="float16", plan=plan).peak for plan in PLANS]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > peaks[1] > peaks[2]
    with_cache = estimate_peak(official, precision="float16").stages["sparse_structure"]
    without = estimate_peak(official, precision="float16", condition_cache=False).stages["sparse_structure"]
    # 24 blocks, 2 streams, 7528 tokens, keys and values of 1024 half-precision numbers: 1.48 GB (docs/facts.md, S4.4).
    assert with_cache - without == 24 * 2 * 7528 * 2 * 1024 * 2


def test_what_cannot_fit_is_refused_with_a_way_out(official: ModelConfig) -> None:
    budget = int(4.5 * GIB)
    with pytest.raises(UserError) as raised:
        choose_plan(official, "tiny", budget, formats=("mesh", "gaussian"), precision="float32")
    message = str(raised.value)
    assert "needs" in message
    assert "precision=float16 (" in message
    assert "memory=8gb" in message
    limit = MemoryLimit(official, "8gb", ("mesh", "gaussian"), "float32", replace(PLANS[2], budget=7 * GIB))
    limit.check(20_000)
    with pytest.raises(UserError, match="42,000 voxels needs"):
        limit.check(42_000)
    with pytest.raises(UserError, match="memory=9gb is not possible"):
        budget_bytes("9gb")


def test_run_is_refused_before_the_latent_stage(pipeline: Pipeline, picture) -> None:
    plan = replace(PLANS[0], budget=1)
    pipeline.memory = MemoryLimit(pipeline.config, "8gb", ("mesh",), "float32", plan)
    seen: list[str] = []
    with pytest.raises(UserError, match="memory=8gb leaves"):
        pipeline.run(*picture, progress=lambda stage, done, total: seen.append(stage))
    assert "ss_decode" in seen
    assert "structured_latent" not in seen


def test_loaded_under_a_budget_and_accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsam3d.sam3d.memory import budget as memory

    config = model_config("mini")
    resident, staged = (estimate_peak(config, formats=("mesh",), plan=plan).peak for plan in PLANS[:2])
    monkeypatch.setattr(memory, "BUDGETS", {**memory.BUDGETS, "8gb": RESERVE + (resident + staged) // 2})
    pipeline = load_pipeline("mini", random_weights=True, formats=("mesh",), memory="8gb")
    assert pipeline.memory.plan.staged
    assert isinstance(pipeline.residency, StagedWeights)
    with fastsam3d.accelerate(pipeline, "exact") as acceleration:
        assert not acceleration.config["exact"].cast_weights


def test_settings_name_the_budgets() -> None:
    from fastsam3d.jobs import request

    assert set(request.MEMORY) == set(BUDGETS)
    text = (Path(__file__).parents[2] / "configs" / "config.yaml").read_text()
    assert "\nmemory: none" in text
