from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_shapes import Pose, box_mesh

from fastsam3d.basics.files import write_json
from fastsam3d.basics.optional import optional_module
from fastsam3d.errors import UserError
from fastsam3d.evaluation.benchmark import plots
from fastsam3d.evaluation.quality import gallery
from fastsam3d.evaluation.reporting.tables import half_width, markdown_table, number, summarise


def test_speedup_is_the_ratio_of_totals_and_differences_are_paired():
    off = [
        {"seconds": 4.0, "viou": 0.5, "fidelity_viou": 1.0},
        {"seconds": 2.0, "viou": 0.7, "fidelity_viou": 1.0},
    ]
    fast = [
        {"seconds": 1.0, "viou": 0.4, "fidelity_viou": 0.9},
        {"seconds": 1.0, "viou": 0.8, "fidelity_viou": 0.7},
    ]
    row = summarise("fast", fast, off)
    assert row["seconds_per_object"] == 1.0
    assert row["speedup"] == 3.0
    assert row["speedup_median"] == 3.0
    assert row["viou"] == pytest.approx(0.6)
    assert row["viou_delta"] == pytest.approx(0.0)
    # Differences -0.1 and 0.1: standard error 0.1, t(0.975, 1) = 12.7062.
    assert row["viou_ci"] == pytest.approx([-1.27062, 1.27062], abs=1e-4)
    assert row["fidelity_viou"] == pytest.approx(0.8)
    assert math.isnan(row["cd"])


def test_markdown_is_aligned_and_missing_numbers_are_dashes():
    text = markdown_table(["method", "x"], [["off", number(1.23456, 2)], ["a", number(math.nan, 2)]])
    assert text.splitlines() == [
        "| method |    x |",
        "|:-------|-----:|",
        "| off    | 1.23 |",
        "| a      |    – |",
    ]
    assert half_width([0.1, 0.3], 2) == " ±0.10"
    assert half_width([-math.inf, math.inf], 2) == ""


def test_json_has_no_infinities(tmp_path):
    write_json(tmp_path / "x.json", {"a": [math.inf, 1.0], "b": np.float64("nan"), "c": (np.int64(3),)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.0], "b": None, "c": [3]}


def test_pareto_front_by_hand():
    # (1, 1.0), (2, 0.9), (3, 0.95), (4, 0.5): the second is beaten by the third.
    assert plots.pareto_front([(1, 1.0), (2, 0.9), (3, 0.95), (4, 0.5)]) == [0, 2, 3]


def test_gallery_is_drawn(tmp_path):
    vertices, faces = box_mesh((-0.3,) * 3, (0.3,) * 3)
    mesh = SimpleNamespace(vertices=vertices, faces=faces, vertex_colors=np.full((8, 3), 0.5))
    view = SimpleNamespace(image=np.zeros((8, 8, 3), np.uint8), pose=Pose(translation=(0, 0, 4)))
    assert gallery.gallery([view], [SimpleNamespace(mesh=mesh)], tmp_path / "g.png", columns=1).stat().st_size > 1000


def test_a_missing_package_is_named_with_the_way_to_get_it():
    with pytest.raises(UserError, match=r"surely-absent.*fastsam3d\[bench\]"):
        optional_module("surely_absent.part", "measuring", "bench")


def test_camera_angles_point_from_the_object_to_the_camera():
    # Unturned, the object's z is the direction of sight: the camera looks from below.
    assert gallery.camera_angles(Pose(translation=(0, 0, 4)))[1] == pytest.approx(-90)
    # The rows of the rotation are the images of the object's axes. With y towards the camera and z up it is
    # seen from +y, which is azimuth 180; with y away from the camera and z up from -y, its front.
    half = 2**-0.5
    assert np.abs(gallery.camera_angles(Pose((half, half, 0, 0), (0, 0, 4)))) == pytest.approx([180, 0], abs=1e-6)
    assert gallery.camera_angles(Pose((0, 0, half, half), (0, 0, 4))) == pytest.approx([0, 0], abs=1e-6)


def row_of(method, speedup, fidelity, **more):
    stages = {"sparse_structure": 0.5 / speedup, "structured_latent": 0.5 / speedup}
    return {
        "method": method, "speedup": speedup, "fidelity_viou": fidelity, "f1_005": 40.0, "iou_3d": 0.7,
        "layout_distance": 0.01, "seconds_per_object": 1 / speedup, "stage_seconds": stages, "timed": True, **more,
    }  # fmt: skip


def test_plots_of_many_methods_and_of_a_single_one(tmp_path):
    rows = [row_of("off", 1.0, 1.0), *(row_of(f"method_{i}", 2 + i / 9, 0.95 - i / 50) for i in range(9))]
    rows.append(row_of("other_seed", 1.0, 0.3, timed=False))
    assert plots.pareto(rows, tmp_path / "many.png").stat().st_size > 10_000
    assert plots.pareto(rows[:1], tmp_path / "one.png").stat().st_size > 5_000
    assert plots.stage_bars(rows[:3], tmp_path / "stages.png").stat().st_size > 5_000


def test_sweep_curves_take_the_points_of_each_preset_in_order(tmp_path):
    rows = [row_of("off", 1.0, 1.0), *(row_of(f"paper@{s}", s, 1 - s / 20) for s in (4, 2, 3)), row_of("fast", 5, 0.9)]
    assert plots._curves(rows, "fidelity_viou") == {"paper": [(2, 0.9), (3, 0.85), (4, 0.8)]}
    assert plots.sweep_curves({2.0: rows, "2/1": rows}, "stride", tmp_path / "sweep.png").stat().st_size > 10_000


def test_a_method_has_its_colour_in_every_picture():
    assert plots.colour_of("balanced@4") == plots.colour_of("balanced") != plots.colour_of("paper")
    assert plots.colour_of("fewer_steps@fast") == plots.colour_of("fewer_steps") == plots.colour_of("few_step_shortcut")
