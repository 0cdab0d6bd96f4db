"""Scenes: independent objects, failures that stay alone, and the composed file's frame."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import threading

import numpy as np
import pytest
import torch
import trimesh

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.jobs.report import describe
from fastsam3d.meshes.gaussians import Gaussian
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.sam3d.models.config import PoseConfig
from fastsam3d.sam3d.pipeline.pipeline import Pipeline
from fastsam3d.sam3d.pipeline.pose import Pose, decode_pose
from fastsam3d.sam3d.pipeline.preprocessing import object_moments, prepare_condition, share_picture
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction
from fastsam3d.sam3d.scene.composition import Scene, SceneObject
from fastsam3d.sam3d.scene.reconstruct import _rounds, reconstruct_scene, suitable_batch, suitable_workers
from fastsam3d.sam3d.scene.storage import load_reconstruction, save_reconstruction


def box(extents: tuple[float, float, float], pose: Pose) -> Reconstruction:
    shape = trimesh.creation.box(extents=extents)
    colors = np.full((len(shape.vertices), 3), 0.5, dtype=np.float32)
    mesh = Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int64), colors)
    return Reconstruction(mesh, pose, None, None, 7)  # type: ignore[arg-type]


def test_objects_are_independent_and_failures_stay_alone(pipeline, picture) -> None:
    image, mask = picture
    other = np.zeros_like(mask)
    other[30:46, 40:60] = True
    scene = reconstruct_scene(pipeline, image, [mask, np.zeros_like(mask), other], seed=5, batch=1)
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


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_names_the_object(pipeline, picture, monkeypatch, workers) -> None:
    monkeypatch.setattr("fastsam3d.sam3d.scene.reconstruct.suitable_workers", lambda *_: workers)
    image, mask = picture
    seen = set()
    reconstruct_scene(pipeline, image, [mask, mask], progress=lambda name, *_: seen.add(name))
    # Two workers begin with a batch of one object each, which has no name of its own.
    assert seen == {"object_0", "object_1"} | ({"object_0, object_1"} if workers == 1 else set())


def places(count: int) -> list[np.ndarray]:
    """Different masks of one picture."""
    masks = []
    for index in range(count):
        mask = np.zeros((48, 64), dtype=bool)
        mask[6 + 5 * index : 26 + 4 * index, 4 + 9 * index : 22 + 9 * index] = True
        masks.append(mask)
    return masks


def everything(item: SceneObject) -> list[np.ndarray]:
    result = item.reconstruction
    mesh, pose, structure = result.mesh, result.pose, result.structure
    tensors = [pose.rotation, pose.translation, pose.scale, structure.coords, result.feats]
    tensors += [structure.latents[name] for name in sorted(structure.latents)]
    return [mesh.vertices, mesh.faces, mesh.vertex_colors, *(t.numpy() for t in tensors)]


@pytest.fixture(params=[1, 2], ids=["in turn", "side by side"])
def threads(request):
    """With two threads, two objects run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(("preset", "threads"), [("off", 1), ("balanced", 1), ("balanced", 2)], indirect=["threads"])
def test_a_batch_gives_what_single_runs_give(pipeline, picture, preset, threads) -> None:
    image, masks = picture[0], places(3)
    with fastsam3d.accelerate(pipeline, preset):
        together = reconstruct_scene(pipeline, image, masks, batch=3, seed=3)
        alone = [pipeline.run(image, mask, seed=3) for mask in masks]
    for item, single in zip(together.objects, alone, strict=True):
        for name, latent in single.structure.latents.items():
            assert torch.allclose(item.reconstruction.structure.latents[name], latent, atol=2e-5)
        for a, b in zip(everything(item), everything(SceneObject("", single)), strict=True):
            assert np.allclose(a, b, atol=1e-3)


def test_the_order_of_the_objects_and_an_interruption_change_no_byte(pipeline, picture, threads) -> None:
    image, masks = picture[0], places(4)
    names = ["a", "b", "c", "d"]
    first = reconstruct_scene(pipeline, image, masks, names=names, batch=3)
    turned = reconstruct_scene(pipeline, image, masks[::-1], names=names[::-1], batch=3)
    kept = {item.name: item.reconstruction for item in first.objects if item.name in ("a", "c")}
    made = []
    resumed = reconstruct_scene(
        pipeline, image, masks, names=names, batch=3, finished=kept, on_object=lambda item: made.append(item.name)
    )
    assert sorted(made) == ["b", "d"]
    assert [item.name for item in turned.objects] == ["d", "c", "b", "a"]
    for item in first.objects:
        for other in (turned, resumed):
            (same,) = [entry for entry in other.objects if entry.name == item.name]
            for a, b in zip(everything(item), everything(same), strict=True):
                assert a.tobytes() == b.tobytes()


def test_batches_are_even_and_keep_the_workers_busy() -> None:
    def sizes(count: int, size: int, workers: int) -> list[list[int]]:
        return [[len(batch) for batch in batches] for batches in _rounds(range(count), size, workers)]

    assert sizes(6, 8, 2) == [[3, 3]]
    assert sizes(9, 8, 1) == [[4], [5]]
    assert sizes(27, 8, 2) == [[6, 7], [7, 7]]
    assert sizes(3, 1, 1) == [[1], [1], [1]]
    assert sizes(2, 8, 4) == [[1, 1]]


def test_one_object_that_fails_leaves_the_others_alone(pipeline, picture, threads, monkeypatch) -> None:
    image, masks = picture[0], places(4)
    sample, broken = pipeline.sample_slat, threading.Lock()

    def fail_once(*args, **kwargs):
        if broken.acquire(blocking=False):
            raise RuntimeError("broken")
        return sample(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "sample_slat", lambda self, *a, **k: fail_once(*a, **k))
        scene = reconstruct_scene(pipeline, image, masks, batch=2)
    assert list(scene.failures.values()) == ["RuntimeError: broken"]
    assert len(scene.reconstructions) == 3


def test_work_in_parallel_is_reported_and_leaves_no_trace(pipeline, picture, threads) -> None:
    image, masks = picture[0], places(4)
    before = set(vars(pipeline))
    with fastsam3d.accelerate(pipeline, "balanced") as acceleration:
        reconstruct_scene(pipeline, image, masks, batch=4)
        together = acceleration.report()
        acceleration.reset_report()
        reconstruct_scene(pipeline, image, masks, batch=1)
        alone = acceleration.report()
    assert set(vars(pipeline)) == before
    assert together.objects == 4
    assert together.stages == alone.stages
    assert together.network_flops["sparse_structure"] == alone.network_flops["sparse_structure"]
    assert together.seconds.keys() == alone.seconds.keys()


def test_twins_share_the_weights_and_nothing_else(pipeline, picture) -> None:
    with fastsam3d.accelerate(pipeline, "balanced"), pipeline.twins(1) as (twin,):
        for name, weight in pipeline.models.named_parameters():
            assert twin.models.get_parameter(name) is weight
        mine, other = pipeline.models["ss_generator"], twin.models["ss_generator"]
        assert mine is not other
        assert vars(other)["velocity"] is not vars(mine)["velocity"]
        a, b = pipeline.run(*picture, seed=3), twin.run(*picture, seed=3)
        assert a.mesh.vertices.tobytes() == b.mesh.vertices.tobytes()
    assert other.velocity.__func__ is type(other).velocity


def test_an_interruption_ends_what_runs_beside(pipeline, picture, threads) -> None:
    image, masks = picture[0], places(4)
    stages = []

    def interrupt(item: SceneObject) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct_scene(
            pipeline, image, masks, batch=2, on_object=interrupt, progress=lambda *step: stages.append(step)
        )
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("object")]
    objects = {name for name, stage, *_ in stages if stage == "structured_latent"}
    assert len(objects) <= 2 * threads  # with two workers, one may have begun its next object meanwhile


def test_a_batch_that_fails_falls_back_to_single_runs(pipeline, picture, monkeypatch) -> None:
    image, masks = picture[0], places(2)
    monkeypatch.setattr(pipeline, "sample_structures", lambda *a, **k: 1 / 0)
    scene = reconstruct_scene(pipeline, image, masks, batch=2)
    assert not scene.failures


def test_batches_keep_to_a_memory_budget(pipeline) -> None:
    # 64 tokens an object.
    assert suitable_batch(pipeline) == 8
    loaded = fastsam3d.load_pipeline("mini")
    assert suitable_batch(loaded) == 8
    assert loaded.memory is not None
    loaded.memory = dataclasses.replace(loaded.memory, plan=dataclasses.replace(loaded.memory.plan, budget=2**33))
    assert suitable_batch(loaded) == 1
    assert suitable_workers(loaded, 4) == 1
    # The official size: 4096.
    sizes = dataclasses.replace(pipeline.config.ss_generator, latent_resolution=16)
    pipeline.config = dataclasses.replace(pipeline.config, ss_generator=sizes)
    assert suitable_batch(pipeline) == 1


def test_the_full_frame_is_prepared_once(pipeline, picture, monkeypatch) -> None:
    seen = []
    embed = pipeline.embed_condition
    monkeypatch.setattr(pipeline, "embed_condition", lambda name, inputs: seen.append(inputs) or embed(name, inputs))
    reconstruct_scene(pipeline, picture[0], places(3), batch=2)
    assert len(seen) == 6
    assert all(inputs["rgb_image"] is seen[0]["rgb_image"] for inputs in seen)


def test_an_unusable_mask_is_found_without_preparing_it(pipeline, picture, monkeypatch) -> None:
    prepared, preprocess = [], Pipeline.preprocess
    monkeypatch.setattr(Pipeline, "preprocess", lambda *a, **k: prepared.append(a) or preprocess(*a, **k))
    monkeypatch.setattr("fastsam3d.sam3d.scene.reconstruct.suitable_workers", lambda *_: 1)
    masks = places(2)
    scene = reconstruct_scene(pipeline, picture[0], [*masks, np.zeros_like(masks[0])], batch=3)
    assert list(scene.failures) == ["object_2"] and len(scene.reconstructions) == 2
    assert len(prepared) == 2 + 2 + 1  # in their batch, on their own, and to say what is wrong with the third


def test_a_shared_picture_prepares_what_a_single_one_does(picture) -> None:
    image, mask = picture
    rng = np.random.default_rng(0)
    points = rng.normal((0, 0, 4), size=(48, 64, 3)).astype(np.float32)
    points[:3] = np.nan
    for given in (None, points):
        for over in ("all", "mask"):
            plain = prepare_condition(image, mask, given, image_size=32, scale_over=over)
            shared = prepare_condition(share_picture(image, given, image_size=32), mask, image_size=32, scale_over=over)
            assert plain.keys() == shared.keys()
            assert all(torch.equal(plain[key].nan_to_num(7), shared[key].nan_to_num(7)) for key in plain)


def test_reconstructions_survive_the_disk(pipeline, picture, tmp_path) -> None:
    result = pipeline.run(*picture, seed=2)
    count = 5
    parts = {"xyz": (count, 3), "features_dc": (count, 1, 3), "scaling": (count, 3), "rotation": (count, 4)}
    assert (
        load_reconstruction(
            save_reconstruction(dataclasses.replace(result, projection=None), tmp_path / "b.safetensors")
        ).projection
        is None
    )
    gaussian = Gaussian(**{name: torch.rand(shape) for name, shape in parts.items()}, opacity=torch.rand(count, 1))
    result = dataclasses.replace(result, gaussian=gaussian)
    loaded = load_reconstruction(save_reconstruction(result, tmp_path / "a.safetensors"))
    pairs = zip(everything(SceneObject("a", result)), everything(SceneObject("a", loaded)), strict=True)
    assert all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)
    assert torch.equal(loaded.gaussian.get_scaling, gaussian.get_scaling)
    assert (loaded.seed, loaded.stage_seconds) == (2, result.stage_seconds)
    # `finish` takes colours from it, so a resumed object without it would look different.
    seen, read = result.projection, loaded.projection
    assert seen is not None and read is not None and read.agreement == seen.agreement
    arrays = [
        [part.colors, part.share, part.depth, *part.camera.pose, part.camera.low, part.camera.gain, part.camera.start]
        for part in (seen, read)
    ]
    assert all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(*arrays, strict=True))
    assert describe(loaded) == describe(result) and "outline_iou" in describe(loaded)
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-200])
    with pytest.raises(UserError, match="damaged"):
        load_reconstruction(tmp_path / "a.safetensors")


def test_composed_file_is_below_its_root_the_camera_frame_with_x_and_z_reversed() -> None:
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
        matrix, geometry = loaded.graph.get(name, "scene")
        placed = trimesh.transform_points(loaded.geometry[geometry].vertices, matrix)
        expected = item.pose.apply(torch.from_numpy(item.mesh.vertices)).numpy() * [-1, 1, -1]
        assert np.allclose(placed, expected, atol=1e-5)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_a_scene_has_the_units_of_its_point_map(unit) -> None:
    """An object 20 cm wide, 2 m in front of the camera, by a map in metres and by one in millimetres."""
    points = unit * torch.tensor([[-0.1, 0, 2], [0.1, 0, 2], [0, 0, 2], [0, 0.1, 2], [0, -0.1, 2]])
    # By hand: the middle is at (0, 0, 2), and the median of the largest coordinates about it is 0.1.
    scale, shift = object_moments(points)
    assert torch.allclose(scale, torch.full((3,), 0.1 * unit)) and shift.tolist() == [0, 0, 2 * unit]
    latents = {
        "6drotation_normalized": torch.tensor([1.0, 0, 0, 0, 1, 0]),
        "translation": torch.zeros(3),
        "scale": torch.full((3,), math.log(2.0)),
    }
    plain = PoseConfig((0.0,) * 6, (1.0,) * 6, (0.0,) * 3, (1.0,) * 3, 0.0, 1.0, 0.0, 1.0)
    item = box((1, 1, 1), decode_pose(latents, scale[None], shift[None], plain))
    loaded = trimesh.load(io.BytesIO(Scene((SceneObject("a", item),)).glb_bytes()), file_type="glb", process=False)
    matrix, geometry = loaded.graph.get("a", "scene")  # below the root node, which only turns
    placed = trimesh.transform_points(loaded.geometry[geometry].vertices, matrix)
    assert np.ptp(placed, axis=0) == pytest.approx([0.2 * unit] * 3, rel=1e-5)
    assert placed.mean(axis=0) == pytest.approx([0, 0, -2 * unit], abs=1e-5 * unit)


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
