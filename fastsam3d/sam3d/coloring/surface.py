"""Colours of a picture laid onto the side of a surface that the picture shows.

The small model colours the parts of an object, but not what is drawn on them. Where the surface is seen, the picture
knows better. Each point of the surface is projected into the picture. It takes the colour there as far as it is seen,
faces the camera, and lies inside the mask. Elsewhere it keeps the colour that it has.

A pose is never exact, so the camera is fitted to the outline (`camera.py`). Where the two outlines agree too little,
nothing is taken from the picture: a wrong pose would paint the wrong side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.meshes.gaussians import SPHERICAL_HARMONIC_0, Gaussian
from fastsam3d.meshes.geometry import vertex_normals
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.rasterizer import rasterize
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.sam3d.coloring.camera import PictureCamera, RigidPose, box_of, fitted_camera
from fastsam3d.sam3d.coloring.light import without_light

SIDE = 256
"""Side, in pixels, of the crop that colours are taken from, and of the depth buffer."""
AGREEMENT = 0.6
"""Intersection over union of the two outlines below which no colour is taken."""
GRAZING, FACING = 0.15, 0.5
"""Cosines between normal and view: at the first a point takes nothing from the picture, from the second on all."""
BORDER = 3.0
"""Pixels over which the picture's share rises from the border of the mask inwards."""
BEHIND = 0.03
"""How far behind the nearest surface, in object units, a point still counts as seen."""


@dataclass(frozen=True)
class PictureProjection:
    """The picture as a source of colours for points of one object.

    Attributes:
        camera: says where a point of the object appears in the crop.
        colors: of the material `[S, S, 3]` in 0..1, continued beyond the mask.
        share: `[S, S]` of 0..1, the picture's share by the distance from the mask's border.
        depth: `[S, S]`, camera units, of the nearest surface; infinite where there is none.
        agreement: intersection over union of the projected surface and the mask.
    """

    camera: PictureCamera
    colors: np.ndarray
    share: np.ndarray
    depth: np.ndarray
    agreement: float

    @property
    def fits(self) -> bool:
        """Tells whether the outlines agree well enough for colours to be taken."""
        return self.agreement >= AGREEMENT

    def sample(self, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours `[N, 3]` and the picture's shares `[N]` at points with unit normals, both `[N, 3]`, object frame."""
        place, depth = self.camera.pixels(points)
        side = len(self.colors)
        column, row = np.clip(place.astype(np.int64), 0, side - 1).T
        size = float(np.mean(self.camera.pose.scale))
        seen = depth <= self.depth[row, column] + BEHIND * size
        view = self.camera.eye - points
        view /= np.maximum(np.linalg.norm(view, axis=1, keepdims=True), 1e-9)
        cosine = (normals * view).sum(axis=1)
        facing = np.clip((cosine - GRAZING) / (FACING - GRAZING), 0, 1)
        grid = torch.from_numpy(2 * place / side - 1).float()[None, :, None]
        maps = np.concatenate([self.colors, self.share[..., None]], axis=2)
        planes = torch.from_numpy(maps).float().permute(2, 0, 1)[None]
        found = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
        values = found[0, :, :, 0].numpy().T
        return values[:, :3], values[:, 3] * facing * seen * self.fits

    def painted(self, points: np.ndarray, normals: np.ndarray, colors: np.ndarray) -> np.ndarray:
        """Colours `[N, 3]` in 0..1 of points, with the picture's where it shows them.

        Args:
            points, normals, colors: `[N, 3]`: of the surface, object frame, and the colours that it has.
        """
        found, share = self.sample(points, normals)
        return (colors + share[:, None] * (found - colors)).astype(colors.dtype)


def project_picture(mesh: Mesh, pose: RigidPose, image: Tensor, mask: Tensor) -> PictureProjection:
    """Prepares the picture for the surface of an object.

    A picture shows a material times its light. The light is estimated in two steps and divided out. The first step is
    how brightness depends on the normal (`light.shading_of`). The second is the mean brightness over a neighbourhood
    of `light.NEIGHBOURHOOD` pixels. Both steps compare the picture with the colours that the surface has: their hues
    are poor, but their brightness is fair. Differences inside a neighbourhood, such as spots and letters, stay as they
    are.

    Args:
        mesh: the surface with its colours, object frame, not empty.
        pose: of the object.
        image: crop around the object `[3, S, S]` in 0..1.
        mask: `[S, S]` bool, not empty.
    """
    side = image.shape[-1]
    inside = mask.numpy()
    camera = fitted_camera(mesh.vertices, pose, box_of(inside))
    screen, depth = camera.pixels(mesh.vertices)
    found = rasterize(screen, depth, mesh.faces, side, side)
    flat = np.full(side * side, np.inf)
    flat[found.pixels] = found.depth
    buffer = flat.reshape(side, side)
    outline = np.isfinite(buffer)
    agreement = (outline & inside).sum() / max(1, (outline | inside).sum())
    colors, share = continued(image, mask)
    maps = np.zeros((side * side, 6))
    attributes = np.concatenate([vertex_normals(mesh.vertices, mesh.faces), mesh.vertex_colors], axis=1)
    maps[found.pixels] = found.interpolate(attributes, mesh.faces)
    normals, own = maps.reshape(side, side, 6)[..., :3], maps.reshape(side, side, 6)[..., 3:]
    material = without_light(colors, own, normals, share * outline)
    return PictureProjection(camera, material, share, buffer, float(agreement))


def painted_mesh(mesh: Mesh, projection: PictureProjection) -> Mesh:
    """The surface with the picture's colours at the vertices that it shows."""
    normals = vertex_normals(mesh.vertices, mesh.faces)
    return Mesh(mesh.vertices, mesh.faces, projection.painted(mesh.vertices, normals, mesh.vertex_colors))


def painted_gaussians(gaussian: Gaussian, projection: PictureProjection) -> Gaussian:
    """The Gaussians `[G]` with the picture's colours where it shows them.

    A Gaussian lies flat on the surface: its thinnest axis, turned towards the camera, is the normal. Depth tells which
    Gaussians are on the far side.
    """
    centres = gaussian.get_xyz.float().cpu().numpy()
    axes = quaternion_to_matrix(gaussian.get_rotation.float()).mT  # rows are the axes
    thin = gaussian.get_scaling.argmin(dim=1)
    normals = axes[torch.arange(len(thin), device=thin.device), thin].cpu().numpy()
    away = (normals * (projection.camera.eye - centres)).sum(axis=1, keepdims=True) < 0
    normals = np.where(away, -normals, normals)
    colors = projection.painted(centres, normals, gaussian.colors.float().cpu().numpy())
    changed = (torch.from_numpy(colors).to(gaussian.features_dc) - 0.5) / SPHERICAL_HARMONIC_0
    return replace(gaussian, features_dc=changed[:, None])


def continued(image: Tensor, mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the mask's inside `[S, S, 3]` continued outwards, and the share by the distance from its border."""
    inside = mask.float()[None, None]
    depth = torch.zeros_like(inside)
    shrunk = inside
    for _ in range(int(BORDER)):
        shrunk = -F.max_pool2d(-shrunk, 3, stride=1, padding=1)
        depth = depth + shrunk
    # The outermost pixels of a mask mix the object with what lies behind it: colours start one pixel further in.
    trusted = -F.max_pool2d(-inside, 3, stride=1, padding=1)
    trusted = trusted if trusted.any() else inside
    colors, weight = image[None] * trusted, trusted
    total, known = colors, weight
    for level in range(1, int(np.log2(image.shape[-1])) + 1):
        size = max(1, image.shape[-1] >> level)
        coarse_weight = F.adaptive_avg_pool2d(weight, size)
        coarse = F.adaptive_avg_pool2d(colors, size) / coarse_weight.clamp_min(1e-9)
        reach = (coarse_weight > 0).float()
        missing = (known == 0).float()
        total = total + missing * F.interpolate(coarse * reach, image.shape[-1])
        known = known + missing * F.interpolate(reach, image.shape[-1])
    return total[0].permute(1, 2, 0).numpy(), (depth / BORDER)[0, 0].numpy()
