"""Turntables, and scenes seen through the camera of their photo."""

from __future__ import annotations

import errno
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from known_shapes import ball, cube
from PIL import Image

from fastsam3d.errors import UserError
from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP, smallest_turn
from fastsam3d.meshes.gltf_reading import up_of
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.rotations import matrix_to_quaternion
from fastsam3d.meshes.splats.splats import Splats
from fastsam3d.meshes.turntable import levelled, sample_texture, splat_frames, turntable_frames, write_turntable
from fastsam3d.sam3d.pipeline.pose import Pose
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction
from fastsam3d.sam3d.scene.composition import Scene, SceneObject
from fastsam3d.sam3d.scene.placement import mask_agreement, placement_sheet, silhouettes, to_pixels


def placed(mesh: Mesh, *translation: float) -> Reconstruction:
    pose = Pose(torch.tensor([1.0, 0, 0, 0]), torch.tensor(translation), torch.ones(3))
    return Reconstruction(mesh, pose, None, None, 0)  # type: ignore[arg-type]


def test_a_turntable_goes_round_once(tmp_path) -> None:
    # A ball that is blue in front (-y) and red behind.
    mesh = ball(2)
    front = mesh.vertices[:, 1:2] < 0
    mesh = replace(mesh, vertex_colors=np.where(front, [0.1, 0.1, 0.9], [0.9, 0.1, 0.1]).astype(np.float32))
    frames = [np.asarray(frame).astype(int) for frame in turntable_frames([mesh], 4, 64, 0.0)]
    blue = [frame[32, 32, 2] - frame[32, 32, 0] for frame in frames]
    assert blue[0] > 60 and blue[2] < -60
    # From the right (+x) blue, the front, is on the left.
    assert frames[1][32, 20, 2] > frames[1][32, 20, 0] + 40 and frames[1][32, 44, 0] > frames[1][32, 44, 2] + 40
    still, moving = write_turntable([mesh], tmp_path, "ball", frames=6, size=48)
    assert Image.open(still).size == (6 * 48, 48)
    with Image.open(moving) as animation:
        assert (animation.size, animation.n_frames) == ((48, 48), 6)
    with pytest.raises(UserError, match="nothing to show"):
        turntable_frames([replace(mesh, faces=mesh.faces[:0])])


def test_a_full_disk_leaves_the_earlier_turntable(tmp_path, monkeypatch) -> None:
    earlier = [tmp_path / f"ball_turntable.{kind}" for kind in ("png", "gif")]
    for path in earlier:
        path.write_bytes(b"whole")

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device"):
        write_turntable([cube()], tmp_path, "ball", frames=2, size=16)
    assert sorted(tmp_path.iterdir()) == sorted(earlier)
    assert all(path.read_bytes() == b"whole" for path in earlier)


def test_gaussians_turn_above_the_mesh(tmp_path) -> None:
    # Two Gaussians, blue in front (-y) and red behind, each of which hides the other.
    splats = Splats(
        torch.tensor([[0.0, -0.3, 0.0], [0.0, 0.3, 0.0]]),
        torch.eye(3).repeat(2, 1, 1),
        torch.full((2, 3), 0.1),
        torch.tensor([0.99, 0.99]),
        torch.tensor([[0.1, 0.1, 0.9], [0.9, 0.1, 0.1]]),
    )
    frames = [np.asarray(frame).astype(int) for frame in splat_frames(splats, 4, 64, 0.0)]
    blue = [frame[32, 32, 2] - frame[32, 32, 0] for frame in frames]
    assert blue[0] > 150 and blue[2] < -150
    # From the right (+x) the front is on the left, as on the turntable of a mesh.
    columns = [np.nonzero((frames[1][32, :, k] - frames[1][32, :, 2 - k]) > 100)[0].mean() for k in (2, 0)]
    assert columns[0] < 32 < columns[1]
    still, moving = write_turntable([cube()], tmp_path, "both", frames=4, size=48, splats=splats)
    assert Image.open(still).size == (4 * 48, 2 * 48)
    with Image.open(moving) as animation:
        assert (animation.size, animation.n_frames) == ((48, 96), 4)
    still, _ = write_turntable([], tmp_path, "splats", frames=4, size=48, splats=splats)
    assert Image.open(still).size == (4 * 48, 48)


def test_textures_show_on_the_turntable() -> None:
    mesh = cube()
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    picture[:, :, 1] = 200
    uv = np.full((len(mesh.vertices), 2), 0.5, dtype=np.float32)
    textured = TexturedMesh(mesh.vertices, mesh.faces, mesh.vertex_colors, mesh.vertices, uv, picture)
    beside = replace(ball(1), vertices=ball(1).vertices + np.float32([2, 0, 0]))
    (frame,) = turntable_frames([beside, textured], 1, 96, 0.0)
    pixels = np.asarray(frame).astype(int)
    green = (pixels[..., 1] > 60) & (pixels[..., 0] < 30) & (pixels[..., 2] < 30)
    assert green.sum() > 300
    assert np.nonzero(green)[1].max() < 48  # the ball, with colours of its own, is on the right


def test_textures_are_read_between_texels() -> None:
    picture = np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    found = sample_texture(picture, np.array([[0.25, 0.5], [0.5, 0.5], [0.75, 0.5], [0.0, 0.0], [1.0, 1.0]]))
    assert np.allclose(found[:, 0], [0, 0.5, 1, 0, 1])


def test_silhouettes_hide_what_lies_behind() -> None:
    near, far = placed(ball(2, 0.1), 0, 0, 1.0), placed(ball(2, 0.4), 0, 0, 2.0)
    seen = silhouettes([near, far], 80, 60, 60.0)
    focal = 40 / math.tan(math.radians(30))
    assert seen[0].sum() == pytest.approx(math.pi * (0.1 * focal) ** 2, rel=0.08)
    # A ball seen as a cone: its rim lies at r / sqrt(d^2 - r^2).
    both = math.pi * (0.4 / math.sqrt(4 - 0.16) * focal) ** 2
    assert (seen[0] | seen[1]).sum() == pytest.approx(both, rel=0.05)
    assert not (seen[0] & seen[1]).any()


def test_agreement_is_one_in_place_and_falls_with_displacement() -> None:
    item = placed(ball(2, 0.2), 0.1, 0.0, 1.0)
    mask = silhouettes([item], 120, 90, 50.0)[0]
    assert mask_agreement({"a": item}, {"a": mask}, 50.0) == {"a": 1.0}
    shifted = mask_agreement({"a": placed(ball(2, 0.2), 0.2, 0.0, 1.0)}, {"a": mask}, 50.0)["a"]
    # Two discs of radius 1 half a radius apart: IoU 0.52.
    assert shifted == pytest.approx(0.52, abs=0.05)
    assert mask_agreement({"a": placed(ball(2, 0.2), 2.0, 0.0, 1.0)}, {"a": mask}, 50.0) == {"a": 0.0}
    screen, depth = to_pixels(np.array([[0.1, 0.0, 1.0]]), 120, 90, 50.0)
    assert screen[0] == pytest.approx([60 - 0.1 * 60 / math.tan(math.radians(25)), 45])
    assert depth.tolist() == [1.0]


def test_the_sheet_shows_the_photo_twice_with_outlines() -> None:
    item = placed(ball(2, 0.2), 0.1, 0.0, 1.0)
    mask = silhouettes([item], 120, 90, 50.0)[0]
    sheet = np.asarray(placement_sheet(np.full((90, 120, 3), 100, np.uint8), [item], [mask], 50.0)).astype(int)
    assert sheet.shape == (90, 240, 3)
    row, column = (int(axis.mean()) for axis in np.nonzero(mask))
    assert sheet[row, column].tolist() == [100, 100, 100]
    assert sheet[row, 120 + column].tolist() != [100, 100, 100]
    outline = (sheet == [255, 122, 26]).all(axis=2)
    assert outline[:, :120].sum() > 60 and outline[:, 120:].sum() > 60


def test_the_sheet_of_a_large_photo_is_drawn_at_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """3000 x 2400 pixels become 1200 x 960. Outlines at the photo's size would take seconds for each mask."""
    from fastsam3d.sam3d.scene import placement

    sizes, outlines = [], placement._outlines
    monkeypatch.setattr(placement, "_outlines", lambda masks: sizes.extend(m.shape for m in masks) or outlines(masks))
    mask, dot = np.zeros((2, 2400, 3000), dtype=bool)
    mask[600:1800, 750:2250] = True
    dot[2001:2004, 2501:2504] = True
    sheet = np.asarray(placement_sheet(np.full((2400, 3000, 3), 100, np.uint8), [], [mask, dot], 50.0)).astype(int)
    assert sheet.shape == (960, 2400, 3) and sizes == [(960, 1200)] * 2
    outline = (sheet == [255, 122, 26]).all(axis=2)
    rows, columns = np.nonzero(outline[:780, :980])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (238, 721, 298, 901)
    assert not outline[240:720, 300:900].any()
    assert outline[790:810, 990:1010].any()  # the object of 3 x 3 pixels, at row 801 and column 1001


def test_placed_meshes_levelled_are_the_scenes_file_turned_to_z_up() -> None:
    from fastsam3d.meshes.gltf_reading import read_glb

    quarter = torch.tensor([math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0])
    pose = Pose(quarter, torch.tensor([0.5, -0.2, 3.0]), torch.full((3,), 1.5))
    scene = Scene((SceneObject("a", Reconstruction(cube(), pose, None, None, 0)),))  # type: ignore[arg-type]
    ((_, read),) = read_glb(scene.glb_bytes())
    up = scene.up()
    assert up is not None
    (mesh,) = levelled(scene.placed_meshes(), up @ Z_UP_TO_Y_UP.T)
    assert np.allclose(mesh.vertices, read.vertices, atol=1e-5)


def test_a_scene_is_levelled_by_the_objects_that_stand_in_it() -> None:
    """A camera that looks down by 30 degrees: what stands upright leans in its frame, and is upright again levelled."""
    half = math.radians(30) / 2
    lean = torch.tensor([math.cos(half), math.sin(half), 0.0, 0.0])
    pole = Mesh(
        np.array([[0, 0, 0], [0, 0, 1], [0.1, 0, 0]], dtype=np.float32),
        np.array([[0, 1, 2]]),
        np.ones((3, 3), np.float32),
    )
    turned = torch.tensor([math.cos(half), -math.sin(half), 0.0, 0.0])
    flat = torch.tensor([0.0, 1.0, 0.0, 0.0])  # upside down

    def scene(*rotations: torch.Tensor) -> Scene:
        poses = [Pose(rotation, torch.tensor([0.0, 0.0, 2.0]), torch.ones(3)) for rotation in rotations]
        return Scene(
            tuple(
                SceneObject(str(k), Reconstruction(pole, pose, None, None, 0))  # type: ignore[arg-type]
                for k, pose in enumerate(poses)
            )
        )

    one = scene(lean)
    up = one.up()
    assert up is not None and np.linalg.norm(up) == pytest.approx(1)
    assert abs(up[1]) < 0.99
    assert up_of(one.glb_bytes()) == pytest.approx([0, 0, 1], abs=1e-9)  # of the file, which is level
    (mesh,) = levelled(one.placed_meshes(), up @ Z_UP_TO_Y_UP.T)
    assert mesh.vertices[1] - mesh.vertices[0] == pytest.approx(np.array([0, 0, 1]), abs=1e-5)
    assert np.linalg.norm(mesh.vertices[2] - mesh.vertices[0]) == pytest.approx(0.1, abs=1e-5)
    assert scene(lean, turned).up() == pytest.approx(scene(torch.tensor([1.0, 0, 0, 0])).up(), abs=1e-5)
    upside_down = scene(torch.tensor([1.0, 0, 0, 0]), flat)
    assert upside_down.up() is None and up_of(upside_down.glb_bytes()) is None
    assert (upside_down.levelling() == np.eye(3)).all()


def test_a_scenes_file_is_level_and_its_camera_keeps_the_pitch() -> None:
    """An object that stands on a floor, seen by a camera that looks down by 40 degrees."""
    from fastsam3d.meshes.gltf_reading import read_glb

    down = math.radians(40)
    # In the camera frame (x left, y up, z forward) the floor's up is y, leaning towards the camera: (0, cos, -sin).
    # The object's x points to the left, so that its y is z x x.
    rows = torch.tensor([[1.0, 0, 0], [0, -math.sin(down), -math.cos(down)], [0, math.cos(down), -math.sin(down)]])
    pose = Pose(matrix_to_quaternion(rows), torch.tensor([0.0, 0.0, 2.0]), torch.ones(3))
    item = Reconstruction(cube(), pose, None, None, 0)  # type: ignore[arg-type]
    scene = Scene((SceneObject("a", item),))
    assert scene.camera_elevation() == pytest.approx(40, abs=1e-4)
    ((_, read),) = read_glb(scene.glb_bytes())
    # A cube that stands straight: its corners have two heights only, z here.
    heights = np.unique(read.vertices[:, 2].round(4))
    assert len(heights) == 2 and np.ptp(heights) == pytest.approx(np.ptp(cube().vertices[:, 2]), abs=1e-4)
    # It is 2 before the camera, so 2 sin 40 below it and 2 cos 40 ahead: y here is ahead.
    middle = read.vertices.min(axis=0) / 2 + read.vertices.max(axis=0) / 2
    assert middle == pytest.approx([0, 2 * math.cos(down), -2 * math.sin(down)], abs=1e-4)


def test_the_smallest_turn_is_the_quarter_that_it_is() -> None:
    x, y = np.array([1.0, 0, 0]), np.array([0.0, 1, 0])
    assert smallest_turn(x, y) == pytest.approx(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]))
    assert smallest_turn(x, x) == pytest.approx(np.eye(3))
    assert smallest_turn(x, -x) is None
