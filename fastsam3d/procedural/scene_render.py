"""Rendering of scenes: colour with shadows, one mask per object, camera-space points including the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastsam3d.procedural.cameras import Camera
from fastsam3d.procedural.render import FULL_FRAME, pixel_rays
from fastsam3d.procedural.samples import block_mean, to_bytes
from fastsam3d.procedural.scenes import PlacedObject, Scene
from fastsam3d.procedural.shading import shade
from fastsam3d.procedural.tracing import surface_properties, trace

_FAR_GROUND = 4.0  # the point map ends at this multiple of the camera's distance to the scene


@dataclass(frozen=True)
class ScenePicture:
    """A rendered scene.

    Attributes:
        image: uint8 `[H, W, 3]`.
        masks: bool `[count, H, W]`, the visible part of every object.
        pointmap: float32 `[H, W, 3]`, camera frame; objects and ground, NaN beyond.
    """

    image: np.ndarray
    masks: np.ndarray
    pointmap: np.ndarray


def render_scene(scene: Scene, size: int = 256, supersample: int = 2) -> ScenePicture:
    """Renders a scene; colour takes `supersample`^2 rays a pixel, masks and points the ray of its centre."""
    masks, pointmap = trace_scene(scene, size)
    fine = _shaded(scene, *_visible(scene, size * supersample))
    image = block_mean(fine.reshape(size * supersample, size * supersample, 3), supersample)
    return ScenePicture(to_bytes(image), masks, pointmap)


def trace_scene(scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool `[count, size, size]` and point map float32 `[size, size, 3]` without shading."""
    rays, depth, label = _visible(scene, size)
    far = depth > _FAR_GROUND * float(np.linalg.norm(scene.view.translation))
    pointmap = torch.where(((label == -2) | far)[:, None], torch.nan, rays * depth[:, None])
    masks = torch.stack([label == index for index in range(len(scene.objects))])
    return masks.reshape(-1, size, size).numpy(), pointmap.reshape(size, size, 3).numpy()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.as_tensor(np.asarray(array), dtype=torch.float32)


def _trace_world(placed: PlacedObject, origins: Tensor, directions: Tensor) -> Tensor:
    """Depths `[N]` of world rays on one object."""
    turn = _tensor(placed.turn)
    start = ((origins - _tensor(placed.position)) @ turn.t()) / placed.scale
    return trace(placed.traced, start.expand_as(directions), directions @ turn.t(), steps=24) * placed.scale


def _visible(scene: Scene, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unit camera rays `[N, 3]`, depths `[N]` and labels `[N]`: object index, -1 ground, -2 sky."""
    view: Camera = scene.view
    rays = pixel_rays(view, FULL_FRAME, size)
    rotation = _tensor(view.rotation)
    directions, origin = rays @ rotation.t(), -_tensor(view.translation) @ rotation.t()
    depth = torch.where(directions[:, 2] < -1e-4, -origin[2] / directions[:, 2].clamp_max(-1e-4), torch.inf)
    label = torch.where(depth.isfinite(), -1, -2)
    for index, placed in enumerate(scene.objects):
        pixels = scene.camera_of(index).pixels(placed.traced.surface_points(), size)
        low, high = np.floor(pixels.min(0)).astype(int) - 2, np.ceil(pixels.max(0)).astype(int) + 2
        rows = torch.arange(max(low[1], 0), min(high[1], size))
        columns = torch.arange(max(low[0], 0), min(high[0], size))
        chosen = (rows[:, None] * size + columns).reshape(-1)
        found = _trace_world(placed, origin, directions[chosen])
        nearer = found < depth[chosen]
        depth[chosen[nearer]], label[chosen[nearer]] = found[nearer], index
    return rays, depth, label


def _shaded(scene: Scene, rays: Tensor, depth: Tensor, label: Tensor) -> Tensor:
    rotation = _tensor(scene.view.rotation)
    directions, origin = rays @ rotation.t(), -_tensor(scene.view.translation) @ rotation.t()
    ground, horizon, sky = _tensor(scene.colors)
    height = directions[:, 2:].clamp(-0.5, 0.5) + 0.5
    image = torch.lerp(horizon, sky, height)
    points = origin + directions * torch.where(depth.isfinite(), depth, 0.0)[:, None]
    for index, placed in enumerate(scene.objects):
        chosen = (label == index).nonzero().squeeze(1)
        if len(chosen) == 0:
            continue
        turn = _tensor(placed.turn)
        local = ((points[chosen] - _tensor(placed.position)) @ turn.t()) / placed.scale
        normal, albedo = surface_properties(placed.object, local)
        normal = normal @ turn
        lit = _lit(scene, points[chosen] + 0.015 * normal)
        contact = (0.45 + points[chosen, 2] / 0.25).clamp(0.45, 1)[:, None]
        image[chosen] = shade(albedo, normal, scene.light, lit) * contact
    chosen = (label == -1).nonzero().squeeze(1)
    spot = points[chosen]
    distance = torch.stack([_world_distance(placed, spot) for placed in scene.objects]).amin(0)
    near = distance < 3.0  # shadows are not longer than that
    lit = torch.ones(len(spot))
    lit[near] = _lit(scene, spot[near] + torch.tensor([0, 0, 0.004]))
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand_as(spot)
    occlusion = (0.5 + 0.5 * (distance / 0.3).clamp(0, 1).sqrt())[:, None]
    floor = shade(ground.expand_as(spot), up, scene.light, lit) * occlusion
    fade = ((spot[:, :2].norm(dim=1) - 2) / 16).clamp(0, 1)[:, None]
    fade = fade * (2 - fade)
    image[chosen] = torch.lerp(floor, image[chosen], fade)
    return image


def _lit(scene: Scene, points: Tensor) -> Tensor:
    """1 where the light reaches, 0 in shadow."""
    # every ray aims at another point of the light's disc: the mean over a pixel's rays has soft edges
    spread = torch.rand(points.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    towards = _tensor(scene.light.direction) + 0.12 * spread
    towards = towards / towards.norm(dim=1, keepdim=True)
    blocked = torch.zeros(len(points), dtype=torch.bool)
    for placed in scene.objects:
        turn = _tensor(placed.turn)
        start = ((points - _tensor(placed.position)) @ turn.t()) / placed.scale
        blocked |= trace(placed.traced, start, towards @ turn.t()).isfinite()
    return (~blocked).float()


def _world_distance(placed: PlacedObject, points: Tensor) -> Tensor:
    """Rough distance of points to an object; exact only inside its grid."""
    local = ((points - _tensor(placed.position)) @ _tensor(placed.turn).t()) / placed.scale
    inside = local.clamp(-0.5, 0.5)
    outside = (local - inside).norm(dim=1)
    distance = outside.clone()
    near = outside < 0.6
    distance[near] = distance[near] + placed.object.sdf(inside[near]).clamp_min(0)
    return distance * placed.scale
