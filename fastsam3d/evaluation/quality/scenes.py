"""Layout safety of scenes: acceleration and the shared work of a scene must not move things.

    python -m fastsam3d scene-quality objects=[6,27] scenes=2 preset=balanced output=out/scenes

Held-out procedural scenes with known layout are run three ways, interleaved in one process: the scene with the preset;
every object on its own with the preset; every object on its own with nothing skipped (`off`), which is the reference.
The order of the three rotates from scene to scene. Seconds are those from picture and masks in memory to meshes in
memory, the device synchronised at both ends.

Aims, each printed with what was measured: 3D-IoU with the true boxes at most 0.01 below that of `off`; no object's box
centre farther from that of `off` than 5 % of its longest side; a scene at least 1.3 times as fast per object as the
same objects one by one with the same preset, and at least 4 times as fast as one by one with `off`. The exit code is
1 where one of the first two is missed, so that a change that moves things cannot pass unseen; speed is reported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.basics.files import write_json, write_text
from fastsam3d.evaluation.measuring.counters import synchronise
from fastsam3d.evaluation.metrics.pose_metrics import apply_pose, box_iou_3d, layout_distance
from fastsam3d.evaluation.quality.options import SceneQualityOptions
from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction

SMALLEST_EXTENT = 6
"""Pixels of a mask's narrower side below which an object is hidden or too far away to be judged, and left out."""
IOU_LOSS, DISPLACEMENT, OVER_PRESET, OVER_OFF = 0.01, 0.05, 1.3, 4.0
SCENE, SINGLE, OFF = "scene", "single", "off"


@dataclass(frozen=True)
class Case:
    """A picture, the masks of its objects, and true points of each in the camera frame."""

    image: np.ndarray
    masks: list[np.ndarray]
    pointmap: np.ndarray
    points: list[np.ndarray]


def procedural_case(seed: int, count: int, pixels: int) -> Case:
    """A held-out scene; objects that the picture hardly shows are left out."""
    from fastsam3d.procedural.scene_render import render_scene
    from fastsam3d.procedural.scenes import make_scene

    scene = make_scene(seed, count)
    picture = render_scene(scene, pixels or max(384, 28 * count), supersample=1)
    shown = [i for i, mask in enumerate(picture.masks) if _narrower_side(mask) >= SMALLEST_EXTENT]
    points = [scene.camera_of(i).to_camera(scene.objects[i].traced.surface_points()) for i in shown]
    return Case(picture.image, [picture.masks[i] for i in shown], picture.pointmap, points)


def _narrower_side(mask: np.ndarray) -> int:
    return int(min(np.ptp(axis) + 1 for axis in np.nonzero(mask))) if mask.any() else 0


def measure(
    pipeline: Any, options: SceneQualityOptions, make_case: Callable[[int, int, int], Case] = procedural_case
) -> dict[str, Any]:
    """Runs everything; `{"options", "sizes": [one summary a size], "objects": [one record an object], "safe"}`."""
    from tqdm import tqdm

    plan = [(count, number) for count in options.objects for number in range(options.scenes)]
    _warm_up(pipeline, options, make_case)
    records: list[dict[str, Any]] = []
    for turn, (count, number) in enumerate(tqdm(plan, file=sys.stderr, desc="scenes")):
        seed = HELD_OUT_SEED + 100_000 * (options.seed % 1000 + 1) + 1_000 * number + count
        records += run_case(pipeline, options, make_case(seed, count, options.pixels), seed, turn, count)
    sizes = [summary([r for r in records if r["size"] == count], count) for count in options.objects]
    safe = all(size["aims"]["iou_loss"]["met"] and size["aims"]["displacement"]["met"] for size in sizes)
    return {"options": asdict(options), "sizes": sizes, "objects": records, "safe": safe}


def _warm_up(pipeline: Any, options: SceneQualityOptions, make_case: Callable[[int, int, int], Case]) -> None:
    case = make_case(HELD_OUT_SEED + 1, 2, options.pixels)
    for way in (OFF, SINGLE, SCENE):
        _run(pipeline, options, case, 0, way)


def run_case(
    pipeline: Any, options: SceneQualityOptions, case: Case, seed: int, turn: int, size: int
) -> list[dict[str, Any]]:
    """One record an object of a scene."""
    ways = [SCENE, SINGLE, OFF]
    order = ways[turn % 3 :] + ways[: turn % 3]
    results: dict[str, list[Any]] = {}
    seconds: dict[str, float] = {}
    for way in order:
        results[way], seconds[way] = _run(pipeline, options, case, seed % 2**31, way)
    records = []
    for index, true in enumerate(case.points):
        own = {way: results[way][index] for way in ways}
        record: dict[str, Any] = {"size": size, "seed": seed, "object": index}
        record |= {f"seconds_{way}": seconds[way] / len(case.points) for way in ways}
        record["failed"] = [way for way in ways if own[way] is None]
        if not record["failed"]:
            record |= {f"iou_3d_{way}": _iou(own[way], true) for way in ways}
            record |= moved(own[SCENE], own[OFF])
        records.append(record)
    return records


def _run(
    pipeline: Any, options: SceneQualityOptions, case: Case, seed: int, way: str
) -> tuple[list[Reconstruction | None], float]:
    """Runs all objects of a case; returns them with the seconds that they took together."""
    from fastsam3d.evaluation.measuring.methods import Method
    from fastsam3d.sam3d.scene.reconstruct import reconstruct_scene

    preset = "off" if way == OFF else options.preset
    with Method(preset, preset).attached(pipeline):
        synchronise(options.device)
        start = time.perf_counter()
        if way == SCENE:
            scene = reconstruct_scene(
                pipeline, case.image, case.masks, seed=seed, pointmap=case.pointmap, batch=options.batch
            )
            found = [item.reconstruction for item in scene.objects]
        else:
            found = [_single(pipeline, case, mask, seed) for mask in case.masks]
        synchronise(options.device)
        return found, time.perf_counter() - start


def _single(pipeline: Any, case: Case, mask: np.ndarray, seed: int) -> Reconstruction | None:
    from fastsam3d.errors import UserError

    try:
        return pipeline.run(case.image, mask, seed=seed, pointmap=case.pointmap)
    except UserError:
        return None


def _iou(result: Reconstruction, true: np.ndarray) -> float:
    assert result.mesh is not None
    return box_iou_3d(apply_pose(result.mesh.vertices, result.pose), true)


def moved(result: Reconstruction, reference: Reconstruction) -> dict[str, float]:
    """Measures how far an object stands from its place in the reference run.

    "displacement": distance of the centres of the two boxes in the camera frame over the longest side of the
    reference's; "layout_distance": see `pose_metrics.layout_distance`, which sees turning and growing too.
    """
    assert result.mesh is not None and reference.mesh is not None
    here = apply_pose(result.mesh.vertices, result.pose)
    there = apply_pose(reference.mesh.vertices, reference.pose)
    low, high = there.min(axis=0), there.max(axis=0)
    shift = (here.min(axis=0) + here.max(axis=0) - low - high) / 2
    box = reference.mesh.vertices
    return {
        "displacement": float(np.linalg.norm(shift) / max(float((high - low).max()), 1e-12)),
        "layout_distance": layout_distance(result.pose, reference.pose, box.min(axis=0), box.max(axis=0)),
    }


def summary(records: Sequence[dict[str, Any]], size: int) -> dict[str, Any]:
    """The figures of one size of scene against the aims."""
    judged = [record for record in records if not record["failed"]]
    mean = {way: float(np.mean([r[f"iou_3d_{way}"] for r in judged])) for way in (SCENE, SINGLE, OFF)} if judged else {}
    seconds = {way: float(np.mean([r[f"seconds_{way}"] for r in records])) for way in (SCENE, SINGLE, OFF)}
    worst = max((r["displacement"] for r in judged), default=float("nan"))
    loss = mean[OFF] - mean[SCENE] if judged else float("nan")
    over_preset, over_off = (seconds[way] / max(seconds[SCENE], 1e-12) for way in (SINGLE, OFF))
    return {
        "size": size,
        "objects": len(records),
        "failed": {way: sum(way in r["failed"] for r in records) for way in (SCENE, SINGLE, OFF)},
        "iou_3d": mean,
        "seconds_per_object": seconds,
        "displacement_mean": float(np.mean([r["displacement"] for r in judged])) if judged else float("nan"),
        "layout_distance_max": max((r["layout_distance"] for r in judged), default=float("nan")),
        "aims": {
            "iou_loss": {"value": loss, "aim": IOU_LOSS, "met": bool(loss <= IOU_LOSS)},
            "displacement": {"value": worst, "aim": DISPLACEMENT, "met": bool(worst <= DISPLACEMENT)},
            "over_preset": {"value": over_preset, "aim": OVER_PRESET, "met": bool(over_preset >= OVER_PRESET)},
            "over_off": {"value": over_off, "aim": OVER_OFF, "met": bool(over_off >= OVER_OFF)},
        },
    }


def write(result: dict[str, Any], folder: Path) -> str:
    """Writes both files; returns the Markdown."""
    preset = result["options"]["preset"]
    head = [
        "objects a scene",
        "objects",
        "3D-IoU, off",
        f"3D-IoU, {preset} in a scene",
        "largest displacement",
        "s/object, off singly",
        f"s/object, {preset} singly",
        f"s/object, {preset} in a scene",
        f"over {preset} singly",
        "over off singly",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for size in result["sizes"]:
        aims, iou, seconds = size["aims"], size["iou_3d"], size["seconds_per_object"]
        cells = [
            str(size["size"]),
            str(size["objects"]),
            f"{iou.get(OFF, float('nan')):.3f}",
            f"{iou.get(SCENE, float('nan')):.3f}{_mark(aims['iou_loss'])}",
            f"{aims['displacement']['value']:.1%}{_mark(aims['displacement'])}",
            f"{seconds[OFF]:.2f}",
            f"{seconds[SINGLE]:.2f}",
            f"{seconds[SCENE]:.2f}",
            f"{aims['over_preset']['value']:.2f}×{_mark(aims['over_preset'])}",
            f"{aims['over_off']['value']:.2f}×{_mark(aims['over_off'])}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    aims_text = (
        f"Aims: 3D-IoU at most {IOU_LOSS} below off; displacement of any box centre against off at most "
        f"{DISPLACEMENT:.0%} of the longest side; {OVER_PRESET}× over the same preset singly; {OVER_OFF:g}× over off "
        "singly. ✗ marks those that are missed."
    )
    text = "\n".join([*lines, "", aims_text]) + "\n"
    write_json(folder / "scene_quality.json", result)
    write_text(folder / "scene_quality.md", text)
    return text


def _mark(aim: dict[str, Any]) -> str:
    return "" if aim["met"] else " ✗"
