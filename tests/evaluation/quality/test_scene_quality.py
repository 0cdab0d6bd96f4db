"""Layout safety: displacements and aims by hand, and the whole command on a pipeline that knows the answer."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from fastsam3d.evaluation.quality import scenes as scene_quality
from fastsam3d.evaluation.quality.scenes import (
    Case,
    SceneQualityOptions,
    measure,
    moved,
    procedural_case,
    summary,
    write,
)
from fastsam3d.procedural import HELD_OUT_SEED


def result(x: float, size: float = 1.0, turn: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)) -> SimpleNamespace:
    corners = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) * np.array([1.0, 0.5, 0.25])
    pose = SimpleNamespace(rotation=np.array(turn), translation=np.array([x, 0.0, 3.0]), scale=np.full(3, size))
    return SimpleNamespace(mesh=SimpleNamespace(vertices=corners), pose=pose)


def test_displacement_is_in_parts_of_the_longest_side() -> None:
    # The longest side is 2.
    assert moved(result(0.1), result(0.0))["displacement"] == pytest.approx(0.05)
    # Half as large again about the same centre: nothing moved, but the layout is another.
    grown = moved(result(0.0, 1.5), result(0.0))
    assert grown["displacement"] == pytest.approx(0, abs=1e-12)
    assert grown["layout_distance"] == pytest.approx(0.25)


def record(**values: float) -> dict:
    base = {"size": 6, "failed": [], "displacement": 0.01, "layout_distance": 0.02}
    base |= {"seconds_scene": 1.0, "seconds_single": 1.5, "seconds_off": 3.0}
    return base | {"iou_3d_scene": 0.7, "iou_3d_single": 0.7, "iou_3d_off": 0.7} | values


def test_aims_are_met_or_missed() -> None:
    aims = summary([record(), record(displacement=0.06, iou_3d_off=0.78)], 6)["aims"]
    assert aims["iou_loss"] == {"value": pytest.approx(0.04), "aim": 0.01, "met": False}
    assert aims["displacement"] == {"value": 0.06, "aim": 0.05, "met": False}
    assert aims["over_preset"] == {"value": 1.5, "aim": 1.3, "met": True}
    assert aims["over_off"] == {"value": 3.0, "aim": 4.0, "met": False}
    # One object that failed says nothing of the layout; none at all is no proof of safety.
    lost = {"size": 6, "failed": ["scene"], "seconds_scene": 1.0, "seconds_single": 1.0, "seconds_off": 1.0}
    assert summary([record(), lost], 6)["aims"]["iou_loss"]["met"]
    assert not summary([lost], 6)["aims"]["displacement"]["met"]


def test_cases_have_points_where_their_masks_are() -> None:
    case = procedural_case(HELD_OUT_SEED + 5, 3, 96)
    assert 2 <= len(case.masks) == len(case.points) <= 3
    for mask, points in zip(case.masks, case.points, strict=True):
        shown = case.pointmap[mask]
        assert (shown >= points.min(axis=0) - 0.05).all() and (shown <= points.max(axis=0) + 0.05).all()


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_a_preset_that_moves_things_is_found_out(monkeypatch, tmp_path, shift) -> None:
    case = Case(np.zeros((4, 4, 3), np.uint8), [np.ones((4, 4), bool)] * 2, None, [np.eye(3)] * 2)

    def run(pipeline, options, given, seed, way):
        return [result(shift if way == "scene" else 0.0)] * len(given.masks), {"scene": 1, "single": 2, "off": 8}[way]

    monkeypatch.setattr(scene_quality, "_run", run)
    measured = measure(None, SceneQualityOptions(objects=(2,), scenes=1), lambda *_: case)
    assert measured["safe"] is (shift == 0.0)
    text = write(measured, tmp_path)
    assert ("15.0% ✗" in text) is (shift > 0)
    assert "2.00× |" in text and "8.00× |" in text
    assert json.loads((tmp_path / "scene_quality.json").read_text())["sizes"][0]["objects"] == 2
