from __future__ import annotations

import json
import math
from contextlib import nullcontext

import pytest
from evaluation_stand_in import POINTS, StandIn, make_view, with_error

from fastsam3d.basics.options import describe_options
from fastsam3d.cli.commands.evaluation.bench import main
from fastsam3d.errors import UserError
from fastsam3d.evaluation.benchmark.report import write_results
from fastsam3d.evaluation.benchmark.run import BenchmarkOptions, run_benchmark
from fastsam3d.evaluation.measuring import methods
from fastsam3d.evaluation.measuring.seeds import CALIBRATION, object_seeds
from fastsam3d.procedural import HELD_OUT_SEED

STEPS = {"off": 25, "balanced": 10, "fewer_steps": 10}
ERRORS = {"off": 0.0, "balanced": 0.05, "fewer_steps": 0.1}


@pytest.fixture
def stand_in(monkeypatch):
    """A pipeline whose methods are wrong by a known amount."""

    def attached(method, pipeline):
        if method.name == "off":
            return nullcontext()
        return with_error(pipeline, ERRORS[method.name], STEPS[method.name])

    monkeypatch.setattr(methods.Method, "attached", attached)
    return StandIn()


@pytest.fixture
def result(stand_in):
    options = BenchmarkOptions(methods=("balanced", "fewer_steps"), objects=3, scenes=0, points=POINTS)
    return run_benchmark(stand_in, options, make_view)


def test_rows_meta_and_files(stand_in, result, tmp_path):
    rows = {row["method"]: row for row in result["rows"]}
    assert list(rows) == ["off", "balanced", "fewer_steps", "other_seed"]
    needed = [
        "seconds_per_object",
        "speedup",
        "cd",
        "f1_005",
        "f1_002",
        "f1_001",
        "viou",
        "surface_viou",
        "iou_3d",
        "fidelity_viou",
        "layout_distance",
        "rotation_error_deg",
        "nfe_ss",
        "nfe_slat",
    ]
    assert all(math.isfinite(row[name]) for row in rows.values() for name in needed)
    off = rows["off"]
    assert (off["speedup"], off["fidelity_viou"], off["layout_distance"], off["fidelity_ssim"]) == (1.0, 1.0, 0.0, 1.0)
    assert off["viou_delta"] == 0
    assert off["viou_ci"] == [0, 0]
    assert (off["nfe_ss"], off["nfe_slat"]) == (44, 38)
    assert (rows["balanced"]["nfe_ss"], rows["balanced"]["nfe_slat"]) == (18, 16)
    assert 1 > rows["balanced"]["fidelity_viou"] > rows["fewer_steps"]["fidelity_viou"]
    assert 0 < rows["balanced"]["layout_distance"] < rows["fewer_steps"]["layout_distance"]
    # The stand-in misplaces the object by 0.05; off's box is about 0.62 wide, its diagonal sqrt(3) times it.
    assert rows["balanced"]["layout_distance"] == pytest.approx(0.05 / (0.62 * 3**0.5), rel=0.06)
    assert rows["other_seed"]["fidelity_viou"] < 1
    assert not rows["other_seed"]["timed"]

    settings = result["meta"]["method_settings"]["balanced"]
    assert settings["multistep"]["enabled"] and settings["exact"]["zero_condition"]
    assert "dmd" not in settings  # a group that is off

    text = write_results(result, tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text())["rows"][1]["method"] == "balanced"
    assert (tmp_path / "bench.md").read_text() == text
    assert "| fewer_steps" in text
    assert (tmp_path / "pareto.png").stat().st_size > 5000
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bench.csv",
        "bench.json",
        "bench.md",
        "pareto.png",
        "stages.png",
    ]


def quick(**changes):
    """Options of a small run."""
    return BenchmarkOptions(**{"scenes": 0, "noise_row": False, "points": POINTS, **changes})


def timed_calls(stand_in, methods):
    """Calls after the warm-up, which runs every method once."""
    return stand_in.calls[methods:]


def test_same_noise_for_every_method_in_rotating_order(stand_in):
    run_benchmark(stand_in, quick(methods=("off", "balanced"), objects=2), make_view)
    seeds, (warm,) = object_seeds(7, 2, warmup=1)
    assert stand_in.calls[:2] == [(warm, 0.0), (warm, 0.05)]
    assert timed_calls(stand_in, 2) == [(seeds[0], 0.0), (seeds[0], 0.05), (seeds[1], 0.05), (seeds[1], 0.0)]


def test_the_control_is_matched_to_its_partner_on_every_object(stand_in, monkeypatch):
    asked = []

    def record(method, pipeline, counts):
        asked.append(dict(counts))
        return methods.Method("fewer_steps", "exact")

    monkeypatch.setattr(methods.Method, "matched", record)
    run_benchmark(stand_in, quick(methods=("fewer_steps", "balanced"), objects=3), make_view)
    assert len(asked) == 4  # once for the warm-up, then for every object
    assert all((counts["nfe_ss"], counts["nfe_slat"]) == (18, 16) for counts in asked)
    errors = [error for _, error in timed_calls(stand_in, 3)]
    for number in range(3):
        three = errors[3 * number : 3 * number + 3]
        assert three.index(0.05) < three.index(0.1)


def test_each_guidance_strength_has_its_rows(stand_in):
    result = run_benchmark(stand_in, quick(methods=("off",), objects=1, guidance=(2.0, 7.0)), make_view)
    assert [row["guidance"] for row in result["rows"]] == [2, 7]
    assert stand_in.models["slat_generator"].reverse_fn.strength == 1.0
    own = run_benchmark(stand_in, quick(methods=("off",), objects=1), make_view)
    assert own["rows"][0]["guidance"] == "2/1"


def test_objects_are_held_out_distinct_and_deterministic():
    seeds, warm = object_seeds(7, 64, warmup=2)
    assert min(seeds + warm) >= HELD_OUT_SEED
    assert max(seeds) < 2**31
    assert len(set(seeds + warm)) == 66
    assert object_seeds(7, 64)[0] == seeds
    assert object_seeds(8, 64)[0] != seeds


def test_no_benchmark_seed_reaches_the_objects_that_settings_are_chosen_on():
    # 500,000 blocks of 1,000 seeds each, the first block left free for the warm-up.
    last_of_benchmark = HELD_OUT_SEED + 1_000 * 500_000 + 999
    assert last_of_benchmark < CALIBRATION - 1_000
    assert CALIBRATION + 1_000 * 500_000 + 999 < 2**31


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methods=[off,fastest]", "unknown method 'fastest'"),
        ("object=3", "unknown key 'object'"),
        ("objects=0", "at least 1"),
        ("seed=x", "whole number"),
        ("guidance=[2,nan]", "guidance"),
        ("noise_row=maybe", "true or false"),
        ("verbose", "key=value"),
    ],
)
def test_bad_options_are_named(override, message, tmp_path):
    with pytest.raises(UserError, match=message):
        main([f"output={tmp_path}", override])


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="choose another folder"):
        main([f"output={tmp_path / 'taken'}"])


def test_help_shows_lists_as_they_are_given():
    assert "methods=[off,paper,balanced,fewer_steps]" in describe_options(BenchmarkOptions, "bench")
