"""The second judge of the benchmark, on a pipeline whose methods are wrong by a known amount."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from evaluation_stand_in import POINTS, StandIn, make_view, with_error

from fastsam3d.evaluation.benchmark.report import document_parts, write_results
from fastsam3d.evaluation.benchmark.run import BenchmarkOptions, run_benchmark
from fastsam3d.evaluation.measuring import methods

ERRORS = {"off": 0.0, "balanced": 0.05, "fewer_steps": 0.1, "limit": 0.04}


@pytest.fixture(scope="module")
def result():
    def attached(method, pipeline):
        return nullcontext() if method.name == "off" else with_error(pipeline, ERRORS[method.name], 10)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods.Method, "attached", attached)
        options = BenchmarkOptions(methods=("balanced", "fewer_steps"), objects=2, scenes=0, points=POINTS, limit=True)
        return run_benchmark(StandIn(), options, make_view)


def test_distances_to_the_limit(result):
    rows = {row["method"]: row for row in result["rows"]}
    assert list(rows) == ["off", "balanced", "fewer_steps", "other_seed", "limit"]
    assert (rows["limit"]["limit_viou"], rows["limit"]["limit_layout_distance"]) == (1.0, 0.0)
    assert not rows["limit"]["timed"]
    # The limit is wrong by 0.04, "balanced" by 0.05 and "off" by nothing: it is nearer to the limit than "off".
    assert rows["balanced"]["limit_viou"] > rows["off"]["limit_viou"]
    assert rows["balanced"]["limit_layout_distance"] < 0.3 * rows["off"]["limit_layout_distance"]
    assert rows["balanced"]["limit_viou_delta"] == pytest.approx(
        rows["balanced"]["limit_viou"] - rows["off"]["limit_viou"]
    )
    assert rows["fewer_steps"]["limit_layout_distance_delta"] > 0
    assert rows["off"]["limit_viou_delta"] == 0


def test_table_plot_and_marked_parts(result, tmp_path):
    text = write_results(result, tmp_path)
    assert "Distance to the limit" in text
    assert (tmp_path / "limit.png").stat().st_size > 5000
    parts = document_parts(result, tmp_path, tmp_path)
    assert {"limit", "plot-limit", "judges"} <= set(parts)
    assert "| balanced" in parts["limit"]
    assert "| limit " not in parts["limit"]  # its distance to itself says nothing


def test_without_it_there_is_no_such_table(tmp_path):
    options = BenchmarkOptions(methods=("off",), objects=1, scenes=0, points=POINTS, noise_row=False)
    plain = run_benchmark(StandIn(), options, make_view)
    assert "limit_viou" in plain["rows"][0]
    assert "Distance to the limit" not in write_results(plain, tmp_path)
    assert not (tmp_path / "limit.png").exists()
