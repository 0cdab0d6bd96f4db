from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_stand_in import POINTS, StandIn, make_view
from scipy.spatial import cKDTree

from fastsam3d.evaluation.metrics.outcome import against_truth, outcome_of
from fastsam3d.evaluation.metrics.pose_metrics import apply_pose
from fastsam3d.evaluation.metrics.signed_distance import distance_of, marching_tetrahedra
from fastsam3d.evaluation.metrics.true_shape import reference_shape
from fastsam3d.evaluation.quality.objects import QualityOptions, evaluate_quality
from fastsam3d.evaluation.quality.tables import report, summarise_quality
from fastsam3d.procedural.samples import make_view as make_procedural_view


def test_measured_once_and_resumed(tmp_path):
    pipeline, options = StandIn(), QualityOptions(objects=2, points=POINTS)
    first = evaluate_quality(pipeline, options=options, directory=tmp_path, make_view=make_view)
    assert len(pipeline.calls) == 4  # each image twice, for the other-seed row
    assert first["families"]["ball"]["objects"] == 2
    # The inscribed ball of radius 0.35 in a box of about 0.62: only an estimate is needed here.
    assert 0.5 < first["overall"]["viou"] < 0.9
    assert first["overall"]["iou_3d"] > 0.5
    with (tmp_path / "objects.jsonl").open("a") as stream:
        stream.write('{"object_seed": 10000')  # cut off
    again = evaluate_quality(pipeline, options=options, directory=tmp_path, make_view=make_view)
    assert len(pipeline.calls) == 4
    assert again["overall"]["viou"] == pytest.approx(first["overall"]["viou"])
    pipeline.models["ss_generator"].reverse_fn.backbone.weight.data += 1
    evaluate_quality(pipeline, options=options, directory=tmp_path, make_view=make_view)
    assert len(pipeline.calls) == 8  # other weights, nothing taken over
    evaluate_quality(pipeline, options=options, directory=tmp_path, make_view=make_view)
    assert len(pipeline.calls) == 8  # what came after the line that was cut off is there
    assert "shuffled images" in report(first)


def test_families_and_missing_values():
    columns = (
        "f1_005",
        "f1_002",
        "f1_001",
        "cd",
        "normal_consistency",
        "surface_viou",
        "iou_3d",
        "scale_error",
    )
    base = dict.fromkeys(columns, 1.0) | {"seconds": 2.0, "translation_error": 0.1, "shuffled_viou": 0.1}
    records = [
        {**base, "family": "mug", "viou": 0.8, "rotation_error_deg": 10.0},
        {**base, "family": "chair", "viou": 0.4, "rotation_error_deg": None},
        {**base, "family": "mug", "viou": 0.6, "rotation_error_deg": 30.0},
    ]
    result = summarise_quality(records, {"objects": 3, "first_seed": 0, "steps": {}})
    assert result["families"]["mug"]["viou"] == pytest.approx(0.7)
    assert result["overall"]["viou"] == pytest.approx(0.6)
    assert result["overall"]["rotation_error_deg"] == result["overall"]["rotation_error_deg_median"] == 20
    assert result["shuffled"]["viou"] == pytest.approx(0.1)
    text = report(result)
    assert text.index("| mug") < text.index("| chair")  # best first


def test_a_perfect_reconstruction_of_a_procedural_view_scores_perfectly():
    view = make_procedural_view(1_000_000_003, size=64)
    vertices, faces = marching_tetrahedra(distance_of(view.object), resolution=96)
    perfect = SimpleNamespace(mesh=SimpleNamespace(vertices=vertices, faces=faces), pose=view.pose)
    reference = reference_shape(view.object, points=20_000)
    scores = against_truth(outcome_of(perfect, 1, points=20_000), reference, view.pose)
    assert scores["viou"] > 0.97
    assert scores["f1_002"] > 90
    assert scores["iou_3d"] > 0.97
    assert scores["rotation_error_deg"] < 1e-3
    # The points that the camera saw lie on the surface that the pose puts into the camera frame.
    seen = view.pointmap[np.isfinite(view.pointmap).all(-1)]
    true = apply_pose(reference.surface.points, view.pose)
    assert np.median(cKDTree(true).query(seen)[0]) < 0.02 * float(view.pose.scale[0])
