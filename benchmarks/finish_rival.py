"""The straightforward way to bake a texture, as the pipelines do it: render many views of the Gaussians, then optimise
the texture until the mesh with it looks the same (Adam, L1 and a little total variation)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from fastsam3d.meshes.finishing.baking import Atlas
from fastsam3d.meshes.mesh import TexturedMesh
from fastsam3d.meshes.rasterizer import rasterize
from fastsam3d.meshes.splats.rendering import render_splats
from fastsam3d.meshes.splats.splats import Splats
from fastsam3d.meshes.viewpoint import view_rotation

FOCAL = 1 / 0.9
"""Half sides of a view per unit: the cube of the object from every side."""
RATE, VARIATION = 1e-1, 0.01


@dataclass(frozen=True)
class View:
    """Colours `[P, 3]` of the pixels of a view that show the mesh, and their places in the texture `[P, 2]`."""

    colors: torch.Tensor
    uv: torch.Tensor


def directions(count: int) -> list[tuple[float, float]]:
    """Azimuth and elevation of views that are spread evenly over the sphere (a Fibonacci lattice)."""
    k = np.arange(count)
    elevation = np.degrees(np.arcsin(1 - 2 * (k + 0.5) / count))
    return list(zip((137.50776405 * k % 360).tolist(), elevation.tolist(), strict=True))


def see(atlas: Atlas, splats: Splats, azimuth: float, elevation: float, size: int) -> View:
    """Renders the Gaussians from one direction, and finds where in the texture each pixel lies."""
    rotation = view_rotation(azimuth, elevation)
    focal = size / 2 * FOCAL
    picture, cover = render_splats(
        splats, torch.from_numpy(rotation).float(), torch.zeros(3), float("inf"), focal, size
    )
    seen = atlas.mesh.vertices[atlas.origin] @ rotation.T
    screen = np.stack([seen[:, 0], -seen[:, 1]], axis=1) * focal + size / 2
    hit = rasterize(screen, 1000.0 - seen[:, 2], atlas.faces, size, size)
    colors = (picture / cover.clamp(min=1e-6)[..., None]).reshape(-1, 3)[torch.from_numpy(hit.pixels)]
    known = cover.reshape(-1)[torch.from_numpy(hit.pixels)] > 0.5
    uv = torch.from_numpy(hit.interpolate(atlas.uv, atlas.faces).astype(np.float32))
    return View(colors[known], uv[known])


def bake_by_optimising(
    atlas: Atlas, splats: Splats, views: int, size: int, steps: int, told: Callable[[str], None] = lambda text: None
) -> TexturedMesh:
    """Bakes a texture from so many views of `size` pixels a side, in so many steps of one view each."""
    seen = []
    for number, (azimuth, elevation) in enumerate(directions(views)):
        seen.append(see(atlas, splats, azimuth, elevation, size))
        told(f"view {number + 1} of {views}")
    texture = torch.full((1, 3, atlas.size, atlas.size), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([texture], lr=RATE, betas=(0.5, 0.9))
    order = torch.randint(views, (steps,), generator=torch.Generator().manual_seed(0)).tolist()
    for step, number in enumerate(order):
        view = seen[number]
        for group in optimizer.param_groups:  # one cosine
            group["lr"] = RATE * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / steps)))
        drawn = F.grid_sample(texture, 2 * view.uv[None, None] - 1, align_corners=False)[0, :, 0].T
        variation = texture.diff(dim=2).abs().mean() + texture.diff(dim=3).abs().mean()
        loss = (drawn - view.colors).abs().mean() + VARIATION * variation
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            told(f"step {step} of {steps}")
    pixels = (texture.detach()[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    return atlas.textured(pixels)
