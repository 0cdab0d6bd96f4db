"""Colours of a picture laid onto the side of a surface that it shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.meshes.finishing.finishing import finish
from fastsam3d.meshes.gaussians import SPHERICAL_HARMONIC_0, Gaussian
from fastsam3d.meshes.geometry import vertex_normals
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.sam3d.coloring.camera import RigidPose
from fastsam3d.sam3d.coloring.light import shading_of
from fastsam3d.sam3d.coloring.surface import AGREEMENT, painted_gaussians, painted_mesh, project_picture

# Seen from the front: object x (right) is camera -x (x grows to the left there), object z is up, object y is depth.
FRONT = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
# What a quarter turn about the object's z axis shows: its +x side comes to the front.
SIDEWAYS = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
FAR = np.array([0.0, 0.0, 60.0])
GREY = 0.4


def cube(divisions: int = 12) -> Mesh:
    """A grey cube of side 0.8 with a grid of vertices on each of its faces."""
    steps = np.linspace(-0.4, 0.4, divisions + 1)
    vertices, faces = [], []
    for axis in range(3):
        for side in (-0.4, 0.4):
            first, second = np.meshgrid(steps, steps, indexing="ij")
            points = np.stack([first.ravel(), second.ravel(), np.full(first.size, side)], axis=1)
            start = len(vertices) * first.size
            vertices.append(np.roll(points, axis + 1, axis=1))
            index = start + np.arange(first.size).reshape(first.shape)
            corners = [index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]]
            quads = np.stack([corner.ravel() for corner in corners], axis=1)
            quads = quads if side > 0 else quads[:, ::-1]
            faces += [quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]
    points = np.concatenate(vertices).astype(np.float32)
    return Mesh(points, np.concatenate(faces), np.full(points.shape, GREY, np.float32))


def picture(side: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """A square, off the middle, whose left half is red and whose right half is blue, on green."""
    image = torch.tensor([0.0, 1.0, 0.0])[:, None, None].repeat(1, side, side)
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[20:100, 10:90] = True
    image[:, 20:100, 10:50] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    image[:, 20:100, 50:90] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    return image, mask


def painted(rotation: np.ndarray = FRONT, translation: np.ndarray = FAR) -> Mesh:
    mesh = cube()
    return painted_mesh(mesh, project_picture(mesh, RigidPose(rotation, translation, np.ones(3)), *picture()))


def test_the_cube_is_closed_and_looks_outwards() -> None:
    mesh = cube()
    assert ((vertex_normals(mesh.vertices, mesh.faces) * mesh.vertices).sum(axis=1) > 0).all()


def test_the_front_takes_the_pictures_colours_and_the_other_sides_keep_theirs() -> None:
    mesh = painted()
    x, y, z = mesh.vertices.T
    front = (y < -0.39) & (np.abs(x) < 0.33) & (np.abs(z) < 0.33)
    left, right = mesh.vertex_colors[front & (x < -0.1)], mesh.vertex_colors[front & (x > 0.1)]
    assert (left.argmax(axis=1) == 0).all() and (right.argmax(axis=1) == 2).all()
    assert left[:, 1:].max() < 0.05 and right[:, :2].max() < 0.05  # no green of the background
    others = y > -0.35
    assert np.array_equal(mesh.vertex_colors[others], np.full((others.sum(), 3), GREY, np.float32))


def test_the_pose_decides_which_side_is_painted() -> None:
    mesh = painted(SIDEWAYS)
    x, y, z = mesh.vertices.T
    inner = (np.abs(y) < 0.33) & (np.abs(z) < 0.33)
    shown = inner & (x > 0.39)
    assert (np.abs(mesh.vertex_colors[shown] - GREY).max(axis=1) > 0.2).all()
    hidden = inner & (x < -0.39)
    assert np.array_equal(mesh.vertex_colors[hidden], np.full((hidden.sum(), 3), GREY, np.float32))


def test_place_and_size_of_a_wrong_pose_do_not_matter() -> None:
    near = painted(translation=np.array([0.5, -0.3, 60.0])).vertex_colors
    assert np.abs(near - painted().vertex_colors).mean() < 0.01


def test_what_is_hidden_keeps_its_colour() -> None:
    behind = cube()
    behind = Mesh(behind.vertices + np.float32([0, 1.5, 0]), behind.faces, behind.vertex_colors)
    first = cube()
    both = Mesh(
        np.concatenate([first.vertices, behind.vertices]),
        np.concatenate([first.faces, behind.faces + len(first.vertices)]),
        np.concatenate([first.vertex_colors, behind.vertex_colors]),
    )
    colors = painted_mesh(both, project_picture(both, RigidPose(FRONT, FAR, np.ones(3)), *picture())).vertex_colors
    inner = (np.abs(behind.vertices[:, [0, 2]]) < 0.33).all(axis=1)
    assert np.array_equal(colors[len(first.vertices) :][inner], behind.vertex_colors[inner])


def test_a_pose_whose_outline_does_not_fit_paints_nothing() -> None:
    mesh = cube()
    image, mask = picture()
    mask = mask.clone()
    mask[20:60, 10:50] = False
    mask[60:100, 50:90] = False  # two quarters are left, the box stays the same: the cube's outline fits to one half
    projection = project_picture(mesh, RigidPose(FRONT, FAR, np.ones(3)), image, mask)
    assert projection.agreement == pytest.approx(0.5, abs=0.03) and projection.agreement < AGREEMENT
    assert np.array_equal(painted_mesh(mesh, projection).vertex_colors, mesh.vertex_colors)


def test_shading_is_found_and_divided_out() -> None:
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(4000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colors = rng.uniform(0.2, 0.9, (4000, 3))
    truth = np.array([0.6, 0.1, -0.2, 0.15])
    found = colors * (truth[0] + normals @ truth[1:])[:, None]
    # The pull towards 1 / 1.5 moves it by less than a hundredth.
    assert shading_of(found, np.ones(4000), normals, colors) == pytest.approx(truth, abs=0.01)
    nothing = shading_of(found, np.zeros(4000), normals, colors)
    assert nothing == pytest.approx([1 / 1.5, 0, 0, 0])


def test_gaussians_are_painted_by_their_place_and_thin_axis() -> None:
    mesh = cube()
    projection = project_picture(mesh, RigidPose(FRONT, FAR, np.ones(3)), *picture())
    places = torch.tensor([[-0.2, -0.4, 0.0], [0.2, -0.4, 0.0], [-0.2, 0.4, 0.0]])
    flat = torch.tensor([[0.05, 0.002, 0.05]]).repeat(3, 1)  # thin along y, which is the view
    plain = Gaussian(
        xyz=places + 0.5,
        features_dc=torch.full((3, 1, 3), (GREY - 0.5) / SPHERICAL_HARMONIC_0),
        scaling=torch.zeros(3, 3),
        rotation=torch.zeros(3, 4),
        opacity=torch.zeros(3, 1),
    ).with_scaling(flat)
    colors = painted_gaussians(plain, projection).colors
    assert colors[0].argmax() == 0 and colors[1].argmax() == 2
    torch.testing.assert_close(colors[2], torch.full((3,), GREY))
    assert torch.equal(plain.colors[0], plain.colors[2])  # the given ones are as they were


def test_a_texture_takes_the_picture_too() -> None:
    pytest.importorskip("scipy", reason="textures need SciPy")
    pytest.importorskip("xatlas", reason="textures need xatlas")
    mesh = cube()
    projection = project_picture(mesh, RigidPose(FRONT, FAR, np.ones(3)), *picture())

    class Result:
        gaussian = None

        def __init__(self) -> None:
            self.mesh, self.projection = mesh, projection

    texture = np.asarray(finish(Result(), texture=128, faces=None).mesh.texture, dtype=float)
    pixels = texture[..., :3].reshape(-1, 3) / (255 if texture.max() > 1 else 1)
    for channel in (0, 2):  # red and blue each fill about a twelfth of the surface
        share = ((pixels[:, channel] > 0.5) & (np.delete(pixels, channel, axis=1).max(axis=1) < 0.2)).mean()
        assert 0.02 < share < 0.2
