"""Scores how a reconstruction looks: SSIM, PSNR and mask IoU of eight rendered views against the truth's.

Both meshes are drawn by the same renderer in the object's own frame: orthographic, vertex colours under a soft light
from the viewer. Picture scores are taken where either silhouette is, because the ground around them is equal anyway and
would make everything look alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsam3d.basics.optional import optional_module
from fastsam3d.evaluation.metrics.signed_distance import distance_of, marching_tetrahedra
from fastsam3d.evaluation.metrics.surfaces import as_array
from fastsam3d.meshes.geometry import vertex_normals
from fastsam3d.meshes.rasterizer import rasterize
from fastsam3d.meshes.viewpoint import view_rotation

SIZE = 128
VIEWS = tuple((45.0 * k, 20.0 if k % 2 == 0 else -10.0) for k in range(8))
"""Azimuth and elevation in degrees: all around, from above and from below in turn."""
HALF_SIDE = 0.9
"""Of the square that a view shows, object units: the cube [-0.5, 0.5]^3 from every side."""
HIGHEST_PSNR = 60.0
"""dB, of pictures that are equal: no noise at all would be infinite. Eight-bit rounding alone gives 59."""
AMBIENT = 0.45


@dataclass(frozen=True)
class Renders:
    """Pictures [8, S, S, 3], 0 to 1 on white, and silhouettes [8, S, S] (bool)."""

    pictures: np.ndarray
    masks: np.ndarray


def render_views(vertices: Any, faces: Any, colors: Any, size: int = SIZE) -> Renders:
    """The eight views of a mesh: vertices [V, 3], faces [F, 3], colours [V, 3] in 0 to 1, grey where None."""
    vertices = as_array(vertices).reshape(-1, 3)
    colors = np.full(vertices.shape, 0.5) if colors is None else as_array(colors).reshape(-1, 3)
    faces = as_array(faces, np.int64).reshape(-1, 3)
    pictures = np.ones((len(VIEWS), size * size, 3), dtype=np.float32)
    masks = np.zeros((len(VIEWS), size * size), dtype=bool)
    if len(faces):
        normals = vertex_normals(vertices, faces)
        for index, (azimuth, elevation) in enumerate(VIEWS):
            rotation = view_rotation(azimuth, elevation)
            seen = vertices @ rotation.T
            screen = np.stack([seen[:, 0], -seen[:, 1]], axis=1) * (size / 2 / HALF_SIDE) + size / 2
            # Far away against the size of the object: depth orders the surfaces and bends nothing.
            hit = rasterize(screen, 1000.0 - seen[:, 2], faces, size, size)
            facing = np.abs(hit.interpolate(normals, faces) @ rotation[2])
            length = np.linalg.norm(hit.interpolate(normals, faces), axis=1)
            light = AMBIENT + (1 - AMBIENT) * facing / np.maximum(length, 1e-9)
            pictures[index, hit.pixels] = hit.interpolate(colors, faces) * light[:, None]
            masks[index, hit.pixels] = True
    shape = (len(VIEWS), size, size)
    return Renders(pictures.reshape(*shape, 3).clip(0, 1), masks.reshape(shape))


def render_truth(shape: Any, resolution: int = 64) -> Renders | None:
    """The views of an object with `.sdf` and `.color`; None where it has no colours."""
    if not hasattr(shape, "color"):
        return None
    import torch

    vertices, faces = marching_tetrahedra(distance_of(shape), resolution)
    vertices, faces = welded(vertices, faces)
    colors = as_array(shape.color(torch.from_numpy(vertices.astype(np.float32))))
    return render_views(vertices, faces, colors)


def welded(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with corners at one place made one, so that it has smooth normals."""
    _, first, index = np.unique(np.round(vertices, 6), axis=0, return_index=True, return_inverse=True)
    faces = index.reshape(-1)[faces]
    kept = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return vertices[first], faces[kept]


def compare_renders(renders: Renders, reference: Renders) -> dict[str, float]:
    """Scores of eight views, larger is better.

    "ssim": mean structural similarity where either silhouette is; "psnr": dB, of the squared error of all views
    together there; "mask_iou": mean IoU of the silhouettes, 1 where both are empty.
    """
    either = renders.masks | reference.masks
    shared = renders.masks & reference.masks
    areas = either.sum((1, 2))
    overlap = np.where(areas > 0, shared.sum((1, 2)) / np.maximum(areas, 1), 1.0)
    similar = [
        ssim_map(a, b)[mask].mean() if mask.any() else 1.0
        for a, b, mask in zip(renders.pictures, reference.pictures, either, strict=True)
    ]
    error = ((renders.pictures - reference.pictures)[either] ** 2).mean() if either.any() else 0.0
    return {"ssim": float(np.mean(similar)), "psnr": psnr(float(error)), "mask_iou": float(overlap.mean())}


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of values from 0 to 1, at most `HIGHEST_PSNR`."""
    if mean_squared_error <= 10 ** (-HIGHEST_PSNR / 10):
        return HIGHEST_PSNR
    return float(-10 * np.log10(mean_squared_error))


def ssim_map(a: np.ndarray, b: np.ndarray, sigma: float = 1.5) -> np.ndarray:
    """Structural similarity [H, W] of pictures [H, W, C] with values from 0 to 1, mean over channels.

    Wang et al. 2004: Gaussian window of 11 pixels, constants (0.01)^2 and (0.03)^2, population variances.
    """
    smooth = _smoother(sigma)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = smooth(a), smooth(b)
    variance_a, variance_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    structure = (2 * covariance + 9e-4) / (variance_a + variance_b + 9e-4)
    return (luminance * structure).mean(-1)


def _smoother(sigma: float) -> Any:
    gaussian = optional_module("scipy.ndimage", "measuring", "bench").gaussian_filter

    def smooth(values: np.ndarray) -> np.ndarray:
        return gaussian(values, sigma=(sigma, sigma, 0), radius=(5, 5, 0), mode="reflect")

    return smooth


