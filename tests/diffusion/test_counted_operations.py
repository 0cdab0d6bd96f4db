"""One account of operations: the report, the benchmark and `tune` read the same, and it is what the networks did."""

from __future__ import annotations

import json
import warnings

import pytest
from watched_operations import watched

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.basics.config_files import preset_names
from fastsam3d.evaluation.measuring.counters import counted_evaluations, counted_work
from fastsam3d.evaluation.tuning.calibration import work_of

TERA = 1e12
EXACT = {"exact.onednn": False}
"""Kernels that `watched` does not see; they change no count."""
REUSED = {"first_block_cache.threshold": 1.0, "first_block_cache.latent_threshold": 1.0}
"""Also random networks reuse their blocks with these."""
WATCHED = {
    "off": {},
    "exact": {},
    "balanced": {},
    "first_block_cache": {},
    "magcache": {},
    "exact_layout": {},
    "random_drop": {},
    "paper": {"token_aggregation.minimum_voxels": 0},
    "paper_release": {},
    "fast3dcache": {},
}


def run_under(pipeline, picture, preset, changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        acceleration = accelerate(pipeline, preset, **changes)
    with acceleration, counted_evaluations(pipeline) as counts:
        result = pipeline.run(*picture, seed=1)
        return acceleration.report(), counted_work(pipeline, result, counts, acceleration), result


@pytest.mark.parametrize("preset", preset_names())
def test_report_benchmark_and_tune_agree(pipeline, picture, preset):
    report, work, result = run_under(pipeline, picture, preset, {})
    flop = report.savings()["flop_by_stage"]
    assert work["tflop"] == sum(part["computed"] / TERA for part in flop.values()) > 0
    for short, stage in (("ss", "sparse_structure"), ("slat", "structured_latent")):
        assert work[f"tflop_{short}"] == flop[stage]["computed"] / TERA > 0
        assert work[f"nfe_{short}"] == report.stages[stage].evaluations
        assert work[f"tokens_{short}"] == report.stages[stage].tokens_computed > 0
    # `tune` weighs the columns of the benchmark; a report file holds the very numbers.
    tuned = work_of({**work, "stage_seconds": dict(result.stage_seconds), "cpu_seconds": 1.0})
    assert (tuned["ss"], tuned["slat"]) == (work["tflop_ss"], work["tflop_slat"])
    assert tuned["ss"] + tuned["slat"] + tuned["rest"] == pytest.approx(work["tflop"], rel=1e-12)
    assert json.loads(json.dumps(report.to_dict()))["savings"]["flop_by_stage"] == flop


def test_an_untouched_run_is_counted_as_off_reports_it(pipeline, picture):
    with counted_evaluations(pipeline) as counts:
        result = pipeline.run(*picture, seed=1)
    untouched = counted_work(pipeline, result, counts, None)
    _, off, _ = run_under(pipeline, picture, "off", {})
    assert untouched == pytest.approx(off, rel=1e-12)


def assert_counts_are_those_of_the_networks(pipeline, run, preset, changes, limit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        acceleration = accelerate(pipeline, preset, **EXACT, **changes)
    with acceleration, watched(pipeline) as seen:
        run()
    report = acceleration.report()
    computed = {stage: part.computed for stage, part in report.network_flops.items()}
    assert computed == pytest.approx(seen.stages, rel=limit)
    return report


@pytest.mark.parametrize("preset", WATCHED)
def test_operations_are_those_that_the_networks_call(pipeline, picture, preset):
    changes = {**WATCHED[preset], **(REUSED if preset == "first_block_cache" else {})}

    def run():
        pipeline.run(*picture, seed=1)

    # Measured: at most 0.83 % (the decoder, whose only block has unshifted windows, where the formula takes the mean
    # of both kinds), 0.1 % in the other stages.
    report = assert_counts_are_those_of_the_networks(pipeline, run, preset, changes, 0.01)
    stages = report.stages.values()
    if preset in ("first_block_cache", "magcache", "paper"):
        assert any(stage.tokens_computed < stage.tokens_possible for stage in stages)
    if preset == "exact_layout":
        assert report.stages["sparse_structure"].layout_evaluations > 0
    if preset in ("random_drop", "paper"):
        assert report.voxels_after < report.voxels_before


@pytest.mark.parametrize("switch", ["zero_condition", "condition_cache", "shared_prefix", "time_tables"])
def test_operations_under_each_exact_saving(pipeline, picture, switch):
    changes = {f"exact.{switch}": True, "step_caching": True, "exact_layout": True}
    assert_counts_are_those_of_the_networks(
        pipeline, lambda: pipeline.run(*picture, seed=1), "off", changes, 0.01
    )


@pytest.mark.slow
@pytest.mark.parametrize("preset", WATCHED)
def test_operations_of_the_small_model(preset):
    from fastsam3d.procedural.samples import make_view
    from fastsam3d.sam3d.checkpoints.loading import load_pipeline

    pipeline, view = load_pipeline("mini"), make_view(7)

    def run():
        pipeline.run(view.image, view.mask, seed=0, pointmap=view.pointmap)

    # Measured: at most 0.01 %, the unconditional pass's constant cross-attention, which the formula leaves out.
    assert_counts_are_those_of_the_networks(pipeline, run, preset, WATCHED[preset], 0.001)
