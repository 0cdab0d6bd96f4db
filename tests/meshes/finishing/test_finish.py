"""The finish: what comes out clean, small and textured, from which kinds of results."""

from __future__ import annotations

import itertools
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from finish_truth import is_flat, make_truth, splatted, unlit_views
from host_stand_ins.networks import MeshExtractResult
from known_shapes import ball, color_at, cube

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.evaluation.metrics.visual import compare_renders
from fastsam3d.evaluation.quality.finished import quality_of
from fastsam3d.meshes.finishing.baking import Texels, colors_of_texels, filled
from fastsam3d.meshes.finishing.cleaning import joined, without_loose_pieces
from fastsam3d.meshes.finishing.finishing import finish
from fastsam3d.meshes.finishing.sources import merged, source_of
from fastsam3d.meshes.finishing.voxel_colors import VoxelColors
from fastsam3d.meshes.gaussians import Gaussian
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.rasterizer import rasterize
from fastsam3d.meshes.writing import export_mesh

pytest.importorskip("xatlas", reason="textures need xatlas")
pytest.importorskip("fast_simplification", reason="fewer faces need fast-simplification")


def moved(mesh: Mesh, offset: tuple[float, float, float], scale: float = 1.0) -> Mesh:
    return Mesh((scale * mesh.vertices + np.array(offset)).astype(np.float32), mesh.faces, mesh.vertex_colors)


def texel_places(mesh: TexturedMesh) -> tuple[np.ndarray, np.ndarray]:
    """(places on the surface, colours 0..1) of all texels inside of charts."""
    size = mesh.texture.shape[0]
    hit = rasterize(mesh.uv * size, np.ones(len(mesh.uv)), mesh.faces, size, size)
    return hit.interpolate(mesh.vertices, mesh.faces), mesh.texture.reshape(-1, 3)[hit.pixels] / 255


@pytest.fixture(scope="module")
def truth():
    return make_truth(faces=20_000, gaussians=40_000)


def test_a_texture_from_gaussians_is_nearer_to_the_truth_than_vertex_colours(truth):
    views = unlit_views(truth.mesh, truth.color, 128)
    found = {}
    for texture in (512, None):
        done = finish(truth.mesh, gaussians=truth.splats, faces=2000, texture=texture, watertight=True)
        assert done.facts["colors"] == "gaussians" and done.facts["watertight"]
        assert abs(len(done.mesh.faces) - 2000) < 100
        found[texture] = compare_renders(unlit_views(done.mesh, size=128), views)["psnr"]
        if texture:
            points, colors = texel_places(done.mesh)
            flat = is_flat(points)
            assert flat.sum() > 1000
            assert np.abs(colors[flat] - truth.color(points[flat])).max() < 1 / 255
            assert done.facts["covered"] > 0.85
    assert found[512] > found[None] + 3


def test_the_colours_of_the_surface_serve_where_there_are_no_gaussians():
    done = finish(ball(5), faces=600, texture=128)
    points, colors = texel_places(done.mesh)
    assert done.facts["colors"] == "surface" and done.facts["covered"] == 1
    assert np.abs(colors - color_at(points)).max() < 0.02


def test_without_a_texture_the_vertices_take_the_colours():
    shape = ball(5)
    splats = splatted(shape, 20_000)
    done = finish(shape, gaussians=splats, faces=600, texture=None)
    assert not isinstance(done.mesh, TexturedMesh) and len(done.mesh.faces) <= 600
    assert done.mesh.vertex_colors.shape == done.mesh.vertices.shape


def test_loose_pieces_go_and_small_holes_are_closed():
    shape = merged([ball(4), moved(ball(1), (0.6, 0, 0), 0.1)])
    holed = Mesh(shape.vertices, shape.faces[1:], shape.vertex_colors)
    done = finish(holed, faces=None, texture=None)
    assert done.mesh.vertices[:, 0].max() < 0.41
    assert done.facts["watertight"] and done.facts["open_edges"] == 0
    kept = finish(holed, faces=None, texture=None, loose=0)
    assert kept.mesh.vertices[:, 0].max() > 0.55


def test_large_holes_are_closed_where_that_is_asked_for():
    whole = ball(3)
    half = Mesh(whole.vertices, whole.faces[whole.vertices[whole.faces][:, :, 2].mean(axis=1) < 0], whole.vertex_colors)
    assert not finish(half, faces=None, texture=None).facts["watertight"]
    assert finish(half, faces=None, texture=None, watertight=True).facts["watertight"]


def test_joining_drops_what_has_no_area_and_what_occurs_twice():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [5, 5, 5]], dtype=np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 2], [2, 3, 0], [0, 1, 3]])
    found = joined(Mesh(corners, faces, corners))
    assert len(found.faces) == 1 and len(found.vertices) == 3
    assert len(without_loose_pieces(merged([cube(), moved(cube(), (9, 0, 0))]), 0.5).faces) == 24


def test_uncovered_texels_take_the_colours_of_their_neighbours():
    points = np.array([[0, 0, 0], [1, 0, 0], [10, 0, 0]], dtype=np.float32)
    values = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]], dtype=np.float32)
    found = filled(Texels(np.arange(3), points, points), values, np.array([1.0, 0.0, 1.0]))
    assert np.allclose(found[1], [0.9, 0, 0.1])  # 1 / 1 and 1 / 9
    assert np.allclose(filled(Texels(np.arange(3), points, points), values, np.zeros(3)), 0.5)


def test_a_time_limit_leaves_texels_out_evenly():
    points = ball(4).vertices
    texels = Texels(np.arange(len(points)), points, points / 0.4)
    source = source_of(ball(4))
    values, coverage = colors_of_texels(texels, source, "surface", torch.device("cpu"), deadline=time.monotonic() - 1)
    assert coverage.mean() == pytest.approx(1 / 16, abs=0.01)
    assert np.abs(filled(texels, values, coverage) - color_at(points)).max() < 0.15
    done = finish(ball(4), faces=600, texture=64, budget=1e-6)
    assert done.facts["covered"] < 0.1


def test_results_of_the_official_classes_are_taken():
    shape = ball(4)
    attributes = torch.from_numpy(np.concatenate([shape.vertex_colors, shape.vertices], axis=1))
    mesh = MeshExtractResult(torch.from_numpy(shape.vertices), torch.from_numpy(shape.faces), attributes)
    draw = torch.Generator().manual_seed(0)
    places = torch.from_numpy(shape.vertices) + 0.5
    sizes = (1, 3), (3,), (4,), (1,)
    gaussian = Gaussian(places, *(torch.randn(len(places), *size, generator=draw) for size in sizes))
    done = finish({"mesh": [mesh], "gaussian": [gaussian]}, faces=500, texture=64)
    assert done.facts["colors"] == "gaussians"
    done = finish({"mesh": [mesh], "gaussian": [gaussian]}, faces=500, texture=64, colors="surface")
    points, colors = texel_places(done.mesh)
    assert np.abs(colors - color_at(points)).max() < 0.03
    assert finish([mesh], faces=500, texture=64).facts["colors"] == "surface"


def test_voxels_bring_colours_and_materials():
    shape = ball(4)
    side = 1 / 32
    grid = np.array(list(itertools.product(range(32), repeat=3)))
    centres = -0.5 + (grid + 0.5) * side
    shell = np.abs(np.linalg.norm(centres, axis=1) - 0.4) < 2 * side
    attributes = np.concatenate(
        [color_at(centres[shell]), np.full((shell.sum(), 1), 0.25), np.ones((shell.sum(), 1))], 1
    )
    mesh = SimpleNamespace(
        vertices=torch.from_numpy(shape.vertices),
        faces=torch.from_numpy(shape.faces),
        coords=torch.from_numpy(grid[shell]),
        attrs=torch.from_numpy(attributes),
        origin=torch.tensor([-0.5, -0.5, -0.5]),
        voxel_size=side,
        layout={"base_color": slice(0, 3), "metallic": slice(3, 4), "roughness": slice(4, 5)},
    )
    done = finish(mesh, faces=500, texture=64)
    points, colors = texel_places(done.mesh)
    # The field is linear, and so is the interpolation; the values are those of the full surface's nearest point.
    points *= 0.4 / np.linalg.norm(points, axis=1, keepdims=True)
    assert np.abs(colors - color_at(points)).max() < 0.01
    assert done.mesh.material is not None
    assert (done.mesh.material[..., 0] == 64).all() and (done.mesh.material[..., 1] == 255).all()


def test_voxels_that_are_missing_have_no_weight():
    voxels = VoxelColors(np.array([[0, 0, 0]]), np.array([[0.3]]), np.zeros(3), 0.1, {"base_color": slice(0, 1)})
    found = voxels.sample(np.array([[0.05, 0.05, 0.05], [0.09, 0.05, 0.05], [0.9, 0.9, 0.9]]))
    assert np.allclose(found, 0.3)


def test_files_with_textures_keep_their_colours(tmp_path):
    first = finish(ball(4), faces=1000, texture=128)
    first.save(tmp_path / "a.glb")
    again = finish(tmp_path / "a.glb", faces=400, texture=128)
    points, colors = texel_places(again.mesh)
    assert np.abs(colors - color_at(points)).max() < 0.05


def test_the_quality_of_an_equal_mesh_is_perfect():
    shape = ball(3)
    found = quality_of(shape, source_of(shape), size=64)
    assert found["psnr"] == 60 and found["mask_iou"] == 1 and found["hausdorff"] == 0
    larger = moved(shape, (0, 0, 0), 1.1)
    found = quality_of(larger, source_of(shape), size=64)
    # All points are 0.04 away, and the diagonal is 0.8 times the root of 3; the samples lie at most a little apart.
    assert found["mean_distance"] == pytest.approx(0.04 / (0.8 * 3**0.5), rel=0.1)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"faces": 3}, "ask for at least 4"),
        ({"texture": 4}, "not possible"),
        ({"loose": 1.0}, "loose pieces"),
        ({"colors": "paint"}, "choose from auto"),
        ({"colors": "gaussians"}, "has no gaussians"),
        ({"budget": 0}, "more than 0"),
        ({"device": "tpu9x"}, "not a device"),
        ({"device": "cuda:99"}, "Device cuda:99 was asked for, but PyTorch finds"),
    ],
)
def test_values_that_cannot_be_used_are_refused(changes, text):
    with pytest.raises(UserError, match=text):
        finish(cube(), **changes)


def test_results_that_cannot_be_finished_are_refused(tmp_path):
    empty = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int64), np.zeros((0, 3), np.float32))
    for result, text in (
        (empty, "no faces"),
        ({"gaussian": []}, "no mesh to finish"),
        ([cube(), cube()], "one at a time"),
        (3, "A int cannot be finished"),
    ):
        with pytest.raises(UserError, match=text):
            finish(result)


def test_damaged_results_of_other_pipelines_are_finished_or_refused():
    shape = cube()
    nowhere = np.concatenate([shape.vertices, [[np.nan, 0, 0]]])
    faces = np.concatenate([shape.faces, [[0, 1, len(shape.vertices)]]])
    done = finish(SimpleNamespace(vertices=nowhere, faces=faces), faces=None, texture=None)
    assert len(done.mesh.faces) == len(shape.faces) and np.isfinite(done.mesh.vertices).all()
    for wrong in (-1, len(shape.vertices)):
        damaged = SimpleNamespace(vertices=shape.vertices, faces=np.concatenate([shape.faces, [[0, 1, wrong]]]))
        with pytest.raises(UserError, match="a face refers to a vertex that is not there"):
            finish(damaged, faces=None, texture=None)


def test_one_damaged_gaussian_does_not_take_the_colours_of_the_others():
    shape = ball(4)
    places = torch.from_numpy(shape.vertices) + 0.5
    colors = (torch.from_numpy(shape.vertex_colors)[:, None] - 0.5) / 0.28209479177387814  # 0.5 + 0.282 c is the colour
    gaussian = Gaussian(places, colors, *(torch.full((len(places), size), 5.0) for size in (3, 4, 1)))
    gaussian.scaling[:] = -1.0
    gaussian.xyz[7] = torch.nan
    done = finish({"mesh": shape, "gaussian": gaussian}, faces=None, texture=None)
    assert done.facts["colors"] == "gaussians" and done.facts["covered"] > 0.99


def test_voxels_with_a_value_that_is_not_finite_are_left_out():
    shape = cube()
    values = np.array([[0.25, 0.5, 0.75], [np.nan, 0.5, 0.5], [0.25, 0.5, 0.75]])
    voxels = {"coords": np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]]), "origin": np.zeros(3), "voxel_size": 0.1}
    layout = {"base_color": slice(0, 3)}
    result = SimpleNamespace(vertices=shape.vertices, faces=shape.faces, attrs=values, layout=layout, **voxels)
    done = finish(result, faces=None, texture=None)
    assert np.allclose(done.mesh.vertex_colors, [0.25, 0.5, 0.75], atol=1e-6)


def test_vertices_and_faces_of_other_shapes_are_refused():
    shape = cube()
    for vertices, faces, text in (
        (shape.vertices, np.array([[0, 1, 2, 3]] * 3), r"its faces have the shape \[3, 4\]"),
        (shape.vertices, shape.faces.reshape(-1), r"its faces have the shape \[36\]"),
        (shape.vertices[:, :2], shape.faces, r"its vertices have the shape \[8, 2\]"),
    ):
        with pytest.raises(UserError, match=text):
            finish(SimpleNamespace(vertices=vertices, faces=faces))


def test_a_mesh_in_half_precision_is_taken():
    shape = cube()
    half = SimpleNamespace(vertices=torch.from_numpy(shape.vertices).bfloat16(), faces=torch.from_numpy(shape.faces))
    assert np.allclose(source_of(half).mesh.vertices, shape.vertices, atol=0.002)


def test_voxels_without_a_single_one_are_no_source_of_colours():
    shape = cube()
    empty = {"coords": np.zeros((0, 3)), "attrs": np.zeros((0, 3)), "origin": np.zeros(3), "voxel_size": 0.1}
    result = SimpleNamespace(vertices=shape.vertices, faces=shape.faces, layout={"base_color": slice(0, 3)}, **empty)
    assert finish(result, faces=None, texture=None).facts["colors"] == "surface"


def test_a_mesh_that_is_a_line_is_refused():
    line = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], dtype=np.float32)
    with pytest.raises(UserError, match="no face with an area"):
        finish(Mesh(line, np.array([[0, 1, 2]]), line), texture=64)


def test_the_verb_writes_a_file_and_a_report(tmp_path, capsys):
    from fastsam3d.cli.main import main

    export_mesh(ball(4), tmp_path / "a.glb")
    words = ["finish", str(tmp_path / "a.glb"), "--faces", "500", "--texture", "64", "--quality", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (tmp_path / "a_finished.glb").exists()
    assert report["facts"]["texture"] == 64 and report["quality"]["psnr"] > 25
    assert main(["finish", str(tmp_path / "a.glb"), "--output", str(tmp_path / "a.glb")]) == 2
    assert "written over a file that is read" in capsys.readouterr().err
    assert fastsam3d.finish is finish
