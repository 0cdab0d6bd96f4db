"""Views of single objects with exact ground truth, for evaluation through the whole pipeline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastsam3d.procedural.cameras import Camera, quaternion_from_matrix, sample_camera
from fastsam3d.procedural.objects import ProceduralObject, make_object
from fastsam3d.procedural.render import render_window
from fastsam3d.procedural.shading import sample_light
from fastsam3d.procedural.tracing import TracedObject


@dataclass(frozen=True)
class ObjectPose:
    """Pose of an object in the camera frame: p_cam = (p_obj * scale) @ R(rotation) + translation.

    Attributes:
        rotation: unit quaternion wxyz `[4]`.
        translation: `[3]`, camera units.
        scale: `[3]`, camera units per object unit, three equal values.
    """

    rotation: np.ndarray
    translation: np.ndarray
    scale: np.ndarray

    @classmethod
    def of_camera(cls, camera: Camera) -> ObjectPose:
        """The pose that a `Camera` holds."""
        return cls(
            quaternion_from_matrix(camera.rotation).astype(np.float32),
            np.asarray(camera.translation, np.float32),
            np.full(3, camera.scale, np.float32),
        )


@dataclass(frozen=True)
class View:
    """One picture of one object.

    Attributes:
        object: the object.
        image: uint8 `[H, W, 3]`.
        mask: bool `[H, W]`.
        pointmap: float32 `[H, W, 3]`, camera frame, NaN off the object.
        pose: the object's pose in the camera frame.
        camera: the camera with field of view.
    """

    object: ProceduralObject
    image: np.ndarray
    mask: np.ndarray
    pointmap: np.ndarray
    pose: ObjectPose
    camera: Camera


def make_view(seed: int, family: str | None = None, size: int = 192) -> View:
    """The view of a seed: the object of the same seed under a random camera, light and background.

    Args:
        seed: from `HELD_OUT_SEED` on for evaluation.
        family: see `make_object`.
        size: side of the square picture in pixels.
    """
    item = make_object(seed, family)
    traced = TracedObject.prepare(item)
    rng = np.random.default_rng([11, seed])
    camera = sample_camera(rng, traced.surface_points())
    light = sample_light(rng)
    fine, fine_mask, _ = render_window(traced, camera, light, size=2 * size)
    _, mask, pointmap = render_window(traced, camera, light, size=size)
    coverage = block_mean(fine_mask[..., None].float(), 2)
    image = block_mean(fine, 2) + (1 - coverage) * gradient_background(rng, size)
    return View(item, to_bytes(image), mask.numpy(), pointmap.numpy(), ObjectPose.of_camera(camera), camera)


def gradient_background(rng: np.random.Generator, size: int) -> Tensor:
    """A soft colour gradient `[size, size, 3]` in a random direction."""
    first = rng.uniform(0, 1, 3)
    second = first + rng.uniform(0.15, 0.65) * (rng.uniform(0, 1, 3) - first)
    angle = rng.uniform(0, 2 * np.pi)
    axis = (np.arange(size) + 0.5) / size - 0.5
    along = np.clip(axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle) + 0.5, 0, 1)[..., None]
    return torch.from_numpy((first + along * (second - first)).astype(np.float32))


def block_mean(image: Tensor, factor: int) -> Tensor:
    """Mean over blocks of `factor` x `factor` pixels of `[H, W, C]`."""
    height, width, channels = image.shape
    return image.reshape(height // factor, factor, width // factor, factor, channels).mean(dim=(1, 3))


def to_bytes(image: Tensor) -> np.ndarray:
    """Colours in 0..1 to uint8."""
    return (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
