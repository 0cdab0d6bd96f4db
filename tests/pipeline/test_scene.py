"""Scenes: independent objects, failures that stay alone, and the composed file's frame."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
import trimesh

from fastsam3d.errors import UserError
from fastsam3d.pipeline.pose import Pose
from fastsam3d.pipeline.reconstruction import Mesh, Reconstruction
from fastsam3d.pipeline.scene_composition import Scene, SceneObject
from fastsam3d.pipeline.scene import reconstruct_scene


def box(extents: tuple[float, float, float], pose: Pose) -> Reconstruction:
    shape = trimesh.creation.box(extents=extents)
    colors = np.full((len(shape.vertices), 3), 0.5, dtype=np.float32)
    mesh = Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int64), colors)
    return Reconstruction(mesh, pose, None, None, 7)  # type: ignore[arg-type]


def test_objects_are_independent_and_failures_stay_alone(pipeline, picture) -> None:
    image, mask = picture
    other = np.zeros_like(mask)
    other[30:46, 40:60] = True
    scene = reconstruct_scene(pipeline, image, [mask, np.zeros_like(mask), other], seed=5)
    assert [item.name for item in scene.objects] == ["object_0", "object_1", "object_2"]
    assert len(scene.reconstructions) == 2
    assert "empty" in scene.failures["object_1"]
    alone = pipeline.run(image, other, seed=5)
    assert np.array_equal(scene.objects[2].reconstruction.mesh.vertices, alone.mesh.vertices)
    assert torch.equal(scene.objects[2].reconstruction.pose.translation, alone.pose.translation)


def test_unexpected_errors_are_reported_too(pipeline, picture, monkeypatch) -> None:
    image, mask = picture

    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pipeline, "sample_slat", broken)
    scene = reconstruct_scene(pipeline, image, [mask], names=["mug"])
    assert scene.failures == {"mug": "RuntimeError: out of memory"}
    with pytest.raises(UserError, match="nothing to write"):
        scene.glb_bytes()


def test_masks_and_names_must_fit(pipeline, picture) -> None:
    image, mask = picture
    with pytest.raises(UserError, match="no mask"):
        reconstruct_scene(pipeline, image, [])
    with pytest.raises(UserError, match="different names"):
        reconstruct_scene(pipeline, image, [mask, mask], names=["a", "a"])


def test_progress_names_the_object(pipeline, picture) -> None:
    image, mask = picture
    seen = set()
    reconstruct_scene(pipeline, image, [mask, mask], progress=lambda name, *_: seen.add(name))
    assert seen == {"object_0", "object_1"}


def test_composed_file_is_the_camera_frame_with_x_and_z_reversed() -> None:
    generator = torch.Generator().manual_seed(2)
    rotation = torch.nn.functional.normalize(torch.randn(4, generator=generator), dim=0)
    first = box((0.2, 0.4, 0.8), Pose(rotation, torch.tensor([0.5, -0.2, 3.0]), torch.full((3,), 1.5)))
    second = box(
        (1, 1, 1),
        Pose(torch.tensor([1.0, 0, 0, 0]), torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 2, 3])),
    )
    scene = Scene((SceneObject("first", first), SceneObject("lost", error="why"), SceneObject("second", second)))
    loaded = trimesh.load(io.BytesIO(scene.glb_bytes()), file_type="glb", process=False)
    assert set(loaded.graph.nodes_geometry) == {"first", "second"}
    for name, item in (("first", first), ("second", second)):
        matrix, geometry = loaded.graph[name]
        placed = trimesh.transform_points(loaded.geometry[geometry].vertices, matrix)
        expected = item.pose.apply(torch.from_numpy(item.mesh.vertices)).numpy() * [-1, 1, -1]
        assert np.allclose(placed, expected, atol=1e-5)


def test_layout_is_plain_and_bounds_are_right() -> None:
    quarter = torch.tensor([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)])
    item = box((0.2, 0.4, 0.8), Pose(quarter, torch.tensor([1.0, 2.0, 3.0]), torch.full((3,), 2.0)))
    layout = json.loads(json.dumps(Scene((SceneObject("a", item), SceneObject("b", error="why"))).layout()))
    entry, lost = layout["objects"]
    assert lost == {"name": "b", "error": "why"}
    assert entry["seed"] == 7
    assert entry["bounds_object"] == [pytest.approx([-0.1, -0.2, -0.4]), pytest.approx([0.1, 0.2, 0.4])]
    # A quarter turn about z exchanges the extents of x and y; the scale is two.
    assert entry["bounds_camera"] == [pytest.approx([0.6, 1.8, 2.2]), pytest.approx([1.4, 2.2, 3.8])]


def test_export_writes_the_file(tmp_path) -> None:
    item = box((1, 1, 1), Pose(torch.tensor([1.0, 0, 0, 0]), torch.zeros(3), torch.ones(3)))
    scene = Scene((SceneObject("a", item),))
    assert scene.export(tmp_path / "scene.glb").read_bytes() == scene.glb_bytes()
