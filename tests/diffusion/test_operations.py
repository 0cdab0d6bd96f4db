"""What a report says of exact and approximate savings."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.operations import Ledger
from fastsam3d.diffusion.report import Report, savings_lines
from fastsam3d.diffusion.vocabulary import Trajectory
from fastsam3d.sam3d.models.flops import EvaluationFlops, ModelFlops
from fastsam3d.savings import Passes, sampling_flops, saved_by_switch

PARTS = EvaluationFlops(
    tokens=100, cross=10, condition=20, rest=7, modulation=1, prefix_tokens=4, prefix_rest=2
)


def test_a_run_by_hand():
    passes = Passes.full(5, 3)
    # 5 + 3 passes of 100 + 10 + 20 + 7.
    assert sampling_flops(PARTS, passes) == 8 * 137
    # Three passes without cross-attention and condition.
    assert sampling_flops(PARTS, passes, ["zero_condition"]) == 8 * 137 - 3 * 30
    # And the condition projected once instead of five times.
    assert sampling_flops(PARTS, passes, ["zero_condition", "condition_cache"]) == 8 * 137 - 3 * 30 - 4 * 20
    # Without the shortcut both branches project once.
    assert sampling_flops(PARTS, passes, ["condition_cache"]) == 8 * 137 - 6 * 20
    assert sampling_flops(PARTS, passes, ["shared_prefix"]) == 8 * 137 - 3 * (4 + 2)
    assert sampling_flops(PARTS, passes, ["time_tables"], steps=9) == 8 * 137 - 8 * 1 + 9 * 1
    half = Passes(5, 3, 2.5, 1.5)
    assert sampling_flops(PARTS, half) == 4 * (100 + 10) + 8 * 27
    saved = saved_by_switch(PARTS, passes, ["condition_cache", "zero_condition"])
    assert saved == {"zero_condition": 3 * 30, "condition_cache": 4 * 20}


def test_merging_ends_with_its_object():
    class Costs:
        def sampling(self, stage, voxels, cells, layout):
            return PARTS

        def others(self, voxels, cells):
            return {"mesh_decode": voxels}

    report = Report("none")
    ledger = Ledger(report, Costs(), [])
    coords = torch.zeros(10, 4)
    run = Trajectory("structured_latent", (0.0, 1.0), (False,), coords=coords)
    ledger.merged(40, 10)
    for _ in range(2):  # the second object is one that no technique was asked about
        ledger.sampled("structured_latent", run, Passes.full(1, 0), Passes.full(1, 0))
        ledger.finished({"mesh_decode": 1.0})
    assert report.network_flops["mesh_decode"].plain == 40 + 10
    assert report.network_flops["mesh_decode"].computed == 10 + 10


def test_what_a_batch_spares_is_shared_out_and_what_a_failure_spared_is_not():
    class Costs:
        def sampling(self, stage, voxels, cells, layout):
            return PARTS

        def others(self, voxels, cells):
            return {"ss_condition": 100.0}

    report = Report("none")
    ledger = Ledger(report, Costs(), [])
    for _ in range(3):  # four objects of one picture, encoded once for all of them before the first is finished
        ledger.reused("ss_condition", 60.0)
    for _ in range(4):
        ledger.finished({"ss_condition": 1.0})
    assert report.exact_flops == {"shared_features": 180.0}
    assert report.network_flops["ss_condition"].computed == 400.0 - 180.0
    ledger.reused("ss_condition", 60.0)
    ledger.broke_off()
    ledger.finished({"ss_condition": 1.0})
    assert report.exact_flops == {"shared_features": 180.0}


def totals(report: Report):
    return report.savings()["flop"]


def test_off_saves_nothing(pipeline, picture):
    with accelerate(pipeline, "off") as acceleration:
        pipeline.run(*picture, seed=1)
        flop = totals(acceleration.report())
    assert flop["plain"] == flop["exact"] == flop["computed"] > 0


def test_exact_saves_exactly_and_forecasts_approximately(pipeline, picture):
    with accelerate(pipeline, "exact") as acceleration:
        pipeline.run(*picture, seed=1)
        exact = acceleration.report()
    flop = totals(exact)
    assert flop["saved_approximate"] == pytest.approx(0.0, abs=1e-6 * flop["plain"])
    assert 0.1 < flop["saved_exact"] / flop["plain"] < 0.6
    by_switch = exact.savings()["flop_by_exact_saving"]
    assert sum(by_switch.values()) == pytest.approx(flop["saved_exact"])
    assert set(by_switch) == {"zero_condition", "condition_cache", "shared_prefix", "time_tables"}
    caching = {"enabled": True, "stride": 3, "safety_factor": 100.0}
    with accelerate(pipeline, "off", step_caching=caching) as acceleration:
        pipeline.run(*picture, seed=1)
        report = acceleration.report()
    flop = totals(report)
    assert flop["saved_exact"] == 0
    # Forecast evaluations and nothing else: their number times one pass.
    one = ModelFlops(pipeline.config).sparse_structure().total
    assert flop["saved_approximate"] == pytest.approx(report.stages["sparse_structure"].forecast * one)
    evaluations = report.savings()["evaluations"]
    assert evaluations["left_out_approximately"] == report.stages["sparse_structure"].forecast > 0
    assert evaluations["shortened_exactly"] == 0


def test_carving_fewer_steps_and_merging_are_approximate(pipeline, picture):
    aggregation = {"enabled": True, "minimum_voxels": 0}
    fewer = {"enabled": True, "sparse_structure_steps": 4, "structured_latent_steps": 3}
    for settings in ({"token_carving": True}, {"fewer_steps": fewer}, {"token_aggregation": aggregation}):
        with accelerate(pipeline, "off", **settings) as acceleration:
            pipeline.run(*picture, seed=1)
            flop = totals(acceleration.report())
        assert flop["saved_exact"] == 0
        assert flop["saved_approximate"] > 0
        with accelerate(pipeline, "off") as acceleration:
            pipeline.run(*picture, seed=1)
            untouched = totals(acceleration.report())["plain"]
        # Merging scales voxels and cells alike; on this small grid they do not shrink quite alike.
        assert flop["plain"] == pytest.approx(untouched, rel=0.2)


def test_a_run_that_broke_off_is_not_booked(pipeline, picture):
    def stop(stage, done, total):
        if stage == "structured_latent" and done == 4:
            raise KeyboardInterrupt

    with accelerate(pipeline, "exact") as acceleration:
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(*picture, seed=1, progress=stop)
        assert "structured_latent" not in acceleration.report().network_flops


def test_words(pipeline, picture):
    with accelerate(pipeline, "exact", step_caching=True) as acceleration:
        pipeline.run(*picture, seed=1)
        report = acceleration.report()
    text = str(report)
    assert "exactly" in text
    assert "by approximation" in text
    assert "zero_condition" in text
    assert savings_lines(Report("off").savings()) == []
    assert report.to_dict()["savings"]["flop"]["plain"] > 0


@pytest.mark.parametrize("settings", [{}, {"step_caching": True}])
def test_objects_of_a_batch_are_all_booked(pipeline, picture, settings):
    image, mask = picture
    booked = []
    for masks in ([mask], [mask, mask]):
        with accelerate(pipeline, "exact", **settings) as acceleration:
            pipeline.sample_structures(image, masks, seed=1)
            booked.append(acceleration.report().network_flops["sparse_structure"])
    one, two = booked
    assert two.plain == pytest.approx(2 * one.plain)
    assert two.exact == pytest.approx(2 * one.exact)
    assert two.computed == pytest.approx(2 * one.computed, rel=0.02)
