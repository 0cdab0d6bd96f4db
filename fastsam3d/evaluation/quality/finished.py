"""How much a finished mesh lost: pictures of it beside pictures of its source, and distances between the surfaces."""

from __future__ import annotations

import numpy as np
import torch

from fastsam3d.basics.optional import optional_module
from fastsam3d.evaluation.metrics.visual import HALF_SIDE, VIEWS, Renders, compare_renders
from fastsam3d.meshes.finishing.sources import Source
from fastsam3d.meshes.geometry import interpolate, sample_surface
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.rasterizer import rasterize
from fastsam3d.meshes.splats.rendering import render_splats
from fastsam3d.meshes.splats.splats import Splats
from fastsam3d.meshes.turntable import sample_texture
from fastsam3d.meshes.viewpoint import view_rotation

SIZE = 256
POINTS = 30_000
SAMPLING_SEED = 0


def quality_of(mesh: Mesh, source: Source, size: int = SIZE) -> dict[str, float]:
    """Compares a finished mesh with what it was made of.

    Returns:
        `psnr` and `ssim` of eight views without light, the source's drawn from its Gaussians where it has any;
        `mask_iou` of their silhouettes; `hausdorff` and `mean_distance` between the surfaces, in shares of the diagonal
        of the source's box, from `POINTS` points on each.
    """
    low, high = source.mesh.vertices.min(axis=0), source.mesh.vertices.max(axis=0)
    diagonal = max(float(np.linalg.norm(high - low)), 1e-12)
    centre, factor = (low + high) / 2, HALF_SIDE / (0.5 * diagonal)
    before = (
        mesh_views(source.mesh, centre, factor, size)
        if source.splats is None
        else splat_views(source.splats, centre, factor, size)
    )
    scores = compare_renders(mesh_views(mesh, centre, factor, size), before)
    return scores | {name: value / diagonal for name, value in surface_distances(mesh, source.mesh).items()}


def mesh_views(mesh: Mesh, centre: np.ndarray, factor: float, size: int = SIZE) -> Renders:
    """The views of `visual.render_views` without light, of a mesh moved by `-centre` and scaled by `factor`."""
    pictures = np.ones((len(VIEWS), size * size, 3), dtype=np.float32)
    masks = np.zeros((len(VIEWS), size * size), dtype=bool)
    for index, (azimuth, elevation) in enumerate(VIEWS):
        seen = (mesh.vertices - centre) @ view_rotation(azimuth, elevation).T * factor
        screen = np.stack([seen[:, 0], -seen[:, 1]], axis=1) * (size / 2 / HALF_SIDE) + size / 2
        hit = rasterize(screen, 1000.0 - seen[:, 2], mesh.faces, size, size)
        if isinstance(mesh, TexturedMesh):
            shown = sample_texture(mesh.texture, hit.interpolate(mesh.uv, mesh.faces))
        else:
            shown = hit.interpolate(mesh.vertex_colors, mesh.faces)
        pictures[index, hit.pixels], masks[index, hit.pixels] = shown, True
    shape = (len(VIEWS), size, size)
    return Renders(pictures.reshape(*shape, 3).clip(0, 1), masks.reshape(shape))


def splat_views(splats: Splats, centre: np.ndarray, factor: float, size: int = SIZE) -> Renders:
    """The same views of Gaussians. What is half transparent or less counts as background."""
    pictures, masks = [], []
    for azimuth, elevation in VIEWS:
        rotation = torch.from_numpy(view_rotation(azimuth, elevation)).float()
        focal = size / 2 / HALF_SIDE * factor
        middle = torch.from_numpy(centre).float()
        picture, cover = render_splats(splats, rotation, middle, float("inf"), focal, size)
        pictures.append((picture + 1 - cover[..., None]).clamp(0, 1).numpy())
        masks.append((cover > 0.5).numpy())
    return Renders(np.stack(pictures), np.stack(masks))


def surface_distances(mesh: Mesh, reference: Mesh, count: int = POINTS) -> dict[str, float]:
    """Distances between two surfaces, by points on each: `hausdorff` (the largest), `mean_distance`."""
    tree = optional_module("scipy.spatial", "measuring", "bench").cKDTree
    clouds = []
    for each in (mesh, reference):
        generator = np.random.default_rng(SAMPLING_SEED)
        chosen, weights = sample_surface(each.vertices, each.faces, count, generator)
        clouds.append(interpolate(each.vertices, each.faces, chosen, weights))
    there, back = tree(clouds[1]).query(clouds[0])[0], tree(clouds[0]).query(clouds[1])[0]
    return {"hausdorff": float(max(there.max(), back.max())), "mean_distance": float((there.mean() + back.mean()) / 2)}
