"""Lambert shading with a hemispherical ambient term."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Light:
    """A distant light in the object (or world) frame with z up.

    Attributes:
        direction: unit vector `[3]` towards the light.
        ambient: brightness of the ambient term, 0..1.
    """

    direction: np.ndarray
    ambient: float


def sample_light(rng: np.random.Generator) -> Light:
    """A light from above and in front; the distribution is invariant under the mirror x -> -x."""
    azimuth, elevation = np.deg2rad(rng.uniform(-110, 110)), np.deg2rad(rng.uniform(20, 75))
    direction = [np.sin(azimuth) * np.cos(elevation), -np.cos(azimuth) * np.cos(elevation), np.sin(elevation)]
    return Light(np.array(direction), float(rng.uniform(0.35, 0.6)))


def shade(albedo: Tensor, normal: Tensor, light: Light, visible: Tensor | None = None) -> Tensor:
    """Shaded colour `[N, 3]` in 0..1.

    Args:
        albedo, normal: `[N, 3]`.
        light: the light.
        visible: `[N]` share of direct light that arrives (shadows); 1 by default.
    """
    direction = torch.as_tensor(light.direction, dtype=torch.float32)
    return shade_with(albedo, normal, direction, torch.tensor(light.ambient), visible)


def shade_with(
    albedo: Tensor, normal: Tensor, direction: Tensor, ambient: Tensor, visible: Tensor | None = None
) -> Tensor:
    """The same for lights as tensors: `direction [..., 3]` and `ambient [...]` broadcast against `normal [..., 3]`."""
    direct = (normal * direction).sum(-1).clamp_min(0)
    if visible is not None:
        direct = direct * visible
    sky = 0.5 + 0.5 * normal[..., 2]
    brightness = ambient * (0.55 + 0.45 * sky) + (1 - ambient) * 1.25 * direct
    return (albedo * brightness[..., None]).clamp(0, 1)
