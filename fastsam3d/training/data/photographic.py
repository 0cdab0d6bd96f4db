"""Makes training pictures more like photographs: domain randomisation (Tobin et al., arXiv 1703.06907).

The stored pictures show flat colours under one light, in front of a plain background. This module adds textures,
a second light, gloss, shadows, a cluttered background, other objects in front and behind, ragged masks, exposure, white
balance and noise. They are random for each sample, and work on the tensors of a batch at its size. Nothing is rendered
again: the stored camera points give every pixel its place on the object and its normal.

Sizes are in pixels of the stored crop (64 x 64). Lengths on the object are in its own units (longest side 0.95).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

TEXTURED, RELIT, GLOSSY, SHADOWED = 0.7, 0.7, 0.4, 0.3
"""Shares of the photographic samples with a texture, a second light, a highlight, and a shadow across the object."""
CLUTTERED, BEHIND, BEFORE, RAGGED = 0.8, 0.5, 0.15, 0.5
"""Shares with a cluttered background, another object behind, one that hides a part, and a ragged mask."""


class Draws:
    """Draws random numbers for all samples of a batch.

    Args:
        count: number of samples.
        generator: source of the numbers, on the device where they are needed.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draws uniform numbers `[count, *shape]` between `low` and `high`."""
        device = self.generator.device
        return low + (high - low) * torch.rand(self.count, *shape, generator=self.generator, device=device)

    def normal(self, *shape: int) -> Tensor:
        """Draws numbers `[count, *shape]` of the standard normal distribution."""
        return torch.randn(self.count, *shape, generator=self.generator, device=self.generator.device)

    def chosen(self, share: float) -> Tensor:
        """Draws one for about `share` of the samples and zero for the others, `[count, 1, 1, 1]`."""
        return (self.uniform(1, 1, 1) < share).float()

    def field(self, side: int, size: int, channels: int = 1) -> Tensor:
        """Draws smooth noise `[count, channels, size, size]` of about -1..1, interpolated from `side x side` values."""
        values = self.uniform(channels, side, side, low=-1.0)
        return F.interpolate(values, size, mode="bilinear", align_corners=False)


def photographic_surface(color: Tensor, points: Tensor, rotation: Tensor, draws: Draws) -> Tensor:
    """Returns the colours `[B, 3, S, S]` of the object with textures, a second light, gloss and shadows.

    Args:
        color: stored colours `[B, 3, S, S]` in 0..1.
        points: camera points relative to the pose `[B, 3, S, S]`, `(p - t) / s`, NaN off the object.
        rotation: `[B, 3, 3]`, for row vectors: `p = (p_object * s) @ rotation + t`.
        draws: the random numbers.
    """
    known = points.isfinite().all(1, keepdim=True)
    relative = torch.where(known, points, 0.0).float()
    place = torch.einsum("bjhw,bij->bihw", relative, rotation)
    pattern = _pattern(place, draws)
    kind = draws.uniform(1, 1, 1)
    other = torch.where(kind < 0.4, color * draws.uniform(1, 1, 1, low=0.3, high=1.7), draws.uniform(3, 1, 1))
    amount = draws.chosen(TEXTURED) * draws.uniform(1, 1, 1, high=0.9)
    color = torch.lerp(color, other.expand_as(color).clamp(0, 1), amount * pattern)

    normal = _normals(relative, known)
    light = F.normalize(torch.cat([draws.uniform(2, low=-1.0), -draws.uniform(1, low=0.1)], dim=1), dim=1)
    direct = (normal * light[:, :, None, None]).sum(1, keepdim=True).clamp_min(0)
    tint = draws.uniform(3, 1, 1, low=0.6, high=1.2)
    strength = draws.chosen(RELIT) * draws.uniform(1, 1, 1, high=0.9)
    color = color * (1 + strength * (tint * direct * 1.6 - 0.6))
    half = F.normalize(light + light.new_tensor([0.0, 0.0, -1.0]), dim=1)
    gloss = (normal * half[:, :, None, None]).sum(1, keepdim=True).clamp_min(0)
    gloss = gloss ** draws.uniform(1, 1, 1, low=8.0, high=60.0)
    color = color + draws.chosen(GLOSSY) * draws.uniform(1, 1, 1, high=0.8) * gloss
    edge = (place * F.normalize(draws.normal(3), dim=1)[:, :, None, None]).sum(1, keepdim=True)
    shadow = torch.sigmoid((edge - draws.uniform(1, 1, 1, low=-0.3, high=0.3)) * 30)
    color = color * (1 - draws.chosen(SHADOWED) * draws.uniform(1, 1, 1, low=0.2, high=0.6) * shadow)
    return color.clamp(0, 1)


def _pattern(place: Tensor, draws: Draws) -> Tensor:
    """Returns a pattern `[B, 1, S, S]` of 0..1 in object space per sample: stripes, checks, spots or smooth noise."""
    directions = F.normalize(draws.normal(4, 3), dim=2) * draws.uniform(4, 1, low=1.0, high=12.0)
    phase = 2 * math.pi * draws.uniform(4, 1, 1)
    waves = torch.sin(2 * math.pi * torch.einsum("bchw,bkc->bkhw", place, directions) / 2 + phase)
    stripes = torch.sigmoid(8 * waves[:, :1])
    checks = torch.sigmoid(10 * waves[:, :1] * waves[:, 1:2])
    mixed = waves.mean(1, keepdim=True)
    spots = torch.sigmoid(16 * (mixed - 0.25))
    smooth = 0.5 + 0.5 * mixed
    kind = draws.uniform(1, 1, 1)
    return torch.where(kind < 0.25, stripes, torch.where(kind < 0.4, checks, torch.where(kind < 0.65, spots, smooth)))


def _normals(points: Tensor, known: Tensor) -> Tensor:
    """Returns unit normals `[B, 3, S, S]` towards the camera, from neighbouring points; `(0, 0, -1)` at the outline."""
    across = F.pad(points[..., 2:] - points[..., :-2], (1, 1))
    down = F.pad(points[..., 2:, :] - points[..., :-2, :], (0, 0, 1, 1))
    near = -F.max_pool2d(-known.float(), 3, stride=1, padding=1) > 0
    normal = F.normalize(torch.linalg.cross(across, down, dim=1), dim=1)
    normal = torch.where(normal[:, 2:] > 0, -normal, normal)
    return torch.where(near, normal, normal.new_tensor([0.0, 0.0, -1.0])[:, None, None])


class PhotographicBackground:
    """A cluttered background, called with frame coordinates: noise at several scales, and plain shapes with texture.

    Args:
        plain: the plain background below, called in the same way.
        draws: the random numbers.
        size: side of the noise over the whole frame, in pixels.
    """

    def __init__(self, plain: object, draws: Draws, size: int = 64) -> None:
        self.plain = plain
        noise = torch.zeros(draws.count, 3, size, size, device=draws.generator.device)
        for side in (3, 6, 12, 24, 48):
            grey, tinted = draws.field(side, size), draws.field(side, size, 3)
            noise = noise + draws.uniform(1, 1, 1, high=0.45) * torch.lerp(grey, tinted, draws.uniform(1, 1, 1))
        self.noise = noise * draws.chosen(CLUTTERED)
        shapes = 5
        self.centre = draws.uniform(shapes, 2)
        self.half = draws.uniform(shapes, 2, low=0.04, high=0.35)
        self.color = draws.uniform(shapes, 3)
        self.round = (draws.uniform(shapes) < 0.5).float()
        self.shown = (draws.uniform(shapes) < 0.5).float() * draws.chosen(CLUTTERED).view(-1, 1)
        angle = math.pi * draws.uniform(shapes)
        self.turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=2).unflatten(2, (2, 2))

    def __call__(self, uv: Tensor) -> Tensor:
        """Returns the colours `[B, 3, S, S]` at frame coordinates `[B, S, S, 2]` of 0..1."""
        color = self.plain(uv)  # type: ignore[operator]
        for index in range(self.centre.shape[1]):
            away = (uv - self.centre[:, None, None, index]) @ self.turn[:, None, index]
            away = away / self.half[:, None, None, index]
            ellipse, box = 1 - away.square().sum(-1), 1 - away.abs().amax(-1)
            inside = torch.lerp(box, ellipse, self.round[:, index, None, None])
            cover = torch.sigmoid(40 * inside) * self.shown[:, index, None, None]
            color = torch.lerp(color, self.color[:, index, :, None, None].expand_as(color), cover[:, None])
        noise = F.grid_sample(self.noise, 2 * uv - 1, mode="bilinear", padding_mode="border", align_corners=False)
        return (color + noise).clamp(0, 1)


@dataclass(frozen=True)
class Neighbour:
    """Another object of the batch, shown at a place of each sample's frame.

    Attributes:
        layers: colours times coverage (3 channels), and coverage, `[B, 4, S, S]`.
        window: their place: left, top and size as fractions of the frame `[B, 3]`.
        shown: one where the neighbour is shown and zero elsewhere, `[B, 1, 1, 1]`.
    """

    layers: Tensor
    window: Tensor
    shown: Tensor

    @classmethod
    def beside(
        cls, color: Tensor, alpha: Tensor, window: Tensor, draws: Draws, share: float, distance: tuple[float, float]
    ) -> Neighbour:
        """Takes the next sample's object, at a distance from the middle in lengths of the sample's own window."""
        layers = torch.cat([color * alpha, alpha], dim=1).roll(1, dims=0)
        size = window[:, 2:] * draws.uniform(1, low=0.5, high=1.1)
        angle = 2 * math.pi * draws.uniform(1)
        away = draws.uniform(1, low=distance[0], high=distance[1]) * window[:, 2:]
        middle = window[:, :2] + window[:, 2:] / 2 + away * torch.cat([angle.cos(), angle.sin()], dim=1)
        return cls(layers, torch.cat([middle - size / 2, size], dim=1), draws.chosen(share))

    def over(self, image: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the image `[B, 3, S, S]` with the neighbour in front, and its coverage `[B, 1, S, S]`."""
        local = 2 * (uv - self.window[:, None, None, :2]) / self.window[:, None, None, 2:] - 1
        seen = F.grid_sample(self.layers, local, mode="bilinear", align_corners=False) * self.shown
        return image * (1 - seen[:, 3:]) + seen[:, :3], seen[:, 3:]


def ragged_mask(alpha: Tensor, draws: Draws) -> Tensor:
    """Returns a less exact mask: the border of `alpha [B, 1, S, S]` moved in or out by up to two pixels, unevenly."""
    soft = F.avg_pool2d(F.pad(alpha, (2, 2, 2, 2)), 5, stride=1)
    level = 0.5 + draws.uniform(1, 1, 1, low=-0.25, high=0.25) + 0.3 * draws.field(10, alpha.shape[-1])
    ragged = (soft > level.clamp(0.05, 0.95)).float()
    enough = ragged.sum(dim=(2, 3), keepdim=True) > 0.5 * alpha.sum(dim=(2, 3), keepdim=True)
    return torch.where((draws.chosen(RAGGED) > 0) & enough, ragged, alpha)


class Exposure:
    """Effects of a camera and its file on a picture, drawn once per sample. Crop and frame differ in the noise only.

    Args:
        draws: the random numbers.
        chosen: one for the samples to change and zero for the others, `[B, 1, 1, 1]`.
    """

    def __init__(self, draws: Draws, chosen: Tensor) -> None:
        self.draws, self.chosen = draws, chosen
        self.balance = torch.exp(0.12 * draws.normal(3, 1, 1))
        self.gamma = torch.exp(draws.uniform(1, 1, 1, low=-0.5, high=0.5))
        self.saturation = draws.uniform(1, 1, 1, low=0.2, high=1.4)
        self.noise = draws.uniform(1, 1, 1, high=0.06)

    def __call__(self, image: Tensor) -> Tensor:
        """Returns the changed picture `[B, 3, S, S]`, 0..1."""
        grey = image.mean(1, keepdim=True)
        changed = (torch.lerp(grey.expand_as(image), image, self.saturation) * self.balance).clamp(1e-4, 1)
        changed = changed**self.gamma + self.noise * self.draws.normal(*image.shape[1:])
        return torch.where(self.chosen > 0, changed.clamp(0, 1), image)
