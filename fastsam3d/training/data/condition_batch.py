"""Condition inputs and pose targets of training batches, made from stored crops on the fly.

The batch imitates the preprocessing of the pipeline (docs/facts.md, section S2) without
rendering a full image: the stored crop is pasted into the full frame by resampling, and background,
brightness, blur, mirror and missing or partly known point maps are drawn per sample.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.training.data.dataset import ProceduralDataset
from fastsam3d.training.data.device_dataset import DeviceDataset
from fastsam3d.training.data.photographic import (
    BEFORE,
    BEHIND,
    Draws,
    Exposure,
    Neighbour,
    PhotographicBackground,
    photographic_surface,
    ragged_mask,
)

MISSING_POINTMAP, MISSING_IN_PHOTOGRAPHS = 0.2, 0.6
"""Share of samples without a point map, of plain ones and of those with the looks of photographs."""
GROUND = 0.25
"""Share of samples whose point map also knows the ground that the object stands on."""


def build_condition_batch(
    dataset: ProceduralDataset | DeviceDataset,
    indices: Tensor | None,
    generator: torch.Generator,
    count: int = 16,
    image_size: int = 64,
    scene_factor: float = 0.0,
    photographic: float = 0.0,
) -> dict[str, Tensor]:
    """Network inputs and targets for some views.

    Args:
        dataset: the stored objects.
        indices: object rows `[B]`, or None to draw `count` of them with replacement; views are always drawn.
        generator: source of every random choice, on the device where the batch is made.
        count: how many are drawn, where `indices` is None.
        image_size: side of the condition images.
        scene_factor: share of samples whose point-map scale is that of a larger scene, the object's own scale
            times exp(U(0, 1.6)); for pipelines that take the scale over all points of the picture.
        photographic: share of samples with the looks of photographs, see `fastsam3d.training.data.photographic`.

    Returns:
        `image`, `rgb_image` `[B, 3, S, S]` in 0..1; `mask`, `rgb_image_mask` `[B, 1, S, S]`; `pointmap`,
        `rgb_pointmap` `[B, 3, S, S]`, normalised, NaN where unknown; targets `rotation6d` `[B, 6]` (first two
        columns of R), `translation` `[B, 3]`, `scale` `[B, 3]` and `translation_scale` `[B, 1]` (logarithms),
        all relative to the point map's `pointmap_shift` `[B, 3]` and `pointmap_scale` `[B, 1]`; `sdf`
        `[B, 32, 32, 32]`; `object` `[B]` rows, `view` `[B]`, `mirrored` `[B]` bool.
    """
    if indices is None:
        indices = torch.randint(len(dataset), (count,), generator=generator, device=generator.device)
    count, device = len(indices), indices.device
    view = torch.randint(dataset.views, (count,), generator=generator, device=device)
    raw = dataset.gather(indices, view)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device)

    mirrored = uniform() < 0.5
    _mirror(raw, mirrored)
    rotation, translation, scale = raw["rotation"], raw["translation"], raw["scale"]
    alpha = raw["rgba"][:, 3:].float() / 255
    color = raw["rgba"][:, :3].float() / 255
    points = raw["points"].float() * scale[:, None, None, None] + translation[:, :, None, None]
    known = alpha > 0.5

    shift, unit = _moments(points, known)
    factor = torch.where(uniform() < scene_factor, torch.exp(1.6 * uniform()), 1.0)
    looks = (uniform() < photographic)[:, None, None, None].float()
    missing = uniform() < torch.where(looks.flatten() > 0, MISSING_IN_PHOTOGRAPHS, MISSING_POINTMAP)
    unit = unit * torch.where(missing, 1.0, factor)

    crop_uv = _window_coordinates(raw["window"], color.shape[-1])
    full_uv = _window_coordinates(torch.tensor([[0.0, 0.0, 1.0]], device=device).expand(count, 3), image_size)
    background: Callable[[Tensor], Tensor] = _Background(uniform)
    mask, exposure, before = alpha, None, None
    if photographic > 0:
        draws = Draws(count, generator)
        painted = photographic_surface(color, raw["points"], rotation, draws)
        color = torch.where(looks > 0, painted, color)
        mask = torch.where(looks > 0, ragged_mask(alpha, draws), alpha)
        background = _Photographed(background, draws, looks, color, alpha, raw["window"])
        before = Neighbour.beside(color, alpha, raw["window"], draws, BEFORE, (0.45, 0.7))
        before = Neighbour(before.layers, before.window, before.shown * looks)
        exposure = Exposure(draws, looks)
    gain, blur = (0.75 + 0.45 * uniform(1, 1, 1)), uniform(1, 1, 1) * (uniform(1, 1, 1) < 0.5)

    crop_image = color * alpha + background(crop_uv) * (1 - alpha)
    full_image, full_mask, full_points = _paste(color, alpha, mask, points, raw["window"], image_size)
    full_image = full_image[:, :3] + background(full_uv) * (1 - full_image[:, 3:])
    if before is not None and exposure is not None:
        crop_image, hidden = before.over(crop_image, crop_uv)
        full_image, full_hidden = before.over(full_image, full_uv)
        mask, full_mask = mask * (hidden < 0.5), full_mask * (full_hidden < 0.5)
        known = known & (hidden < 0.5)
        crop_image, full_image = exposure(crop_image), exposure(full_image)
    crop_image = torch.lerp(crop_image, _blurred(crop_image), blur)

    ground = (uniform() < GROUND)[:, None, None, None]
    points = torch.where(known, points, _ground(raw, crop_uv, ground))
    full_points = torch.where(full_mask > 0.5, full_points, _ground(raw, full_uv, ground))

    def normalise(values: Tensor) -> Tensor:
        values = (values - shift[:, :, None, None]) / unit[:, None, None, None]
        return torch.where(missing[:, None, None, None], torch.nan, values)

    inside = ((crop_uv > 0) & (crop_uv < 1)).all(-1)[:, None]  # beyond the picture the crop is filled with zeros
    outside_points = torch.where(missing[:, None, None, None], torch.nan, 0.0)
    batch = {
        "image": (crop_image * gain).clamp(0, 1) * inside,
        "mask": mask * inside,
        "pointmap": torch.where(inside, normalise(points), outside_points),
        "rgb_image": (full_image * gain).clamp(0, 1),
        "rgb_image_mask": full_mask,
        "rgb_pointmap": normalise(full_points),
        "rotation6d": rotation[:, :, :2].transpose(1, 2).reshape(count, 6),
        "translation": (translation - shift) / unit[:, None],
        "scale": torch.log(scale / unit)[:, None].expand(count, 3).clone(),
        "translation_scale": torch.log(translation.norm(dim=1, keepdim=True) / unit[:, None]),
        "pointmap_shift": shift,
        "pointmap_scale": unit[:, None],
        "sdf": torch.where(mirrored[:, None, None, None], raw["sdf"].flip(1), raw["sdf"]),
        "object": indices,
        "view": view,
        "mirrored": mirrored,
    }
    if image_size != color.shape[-1]:
        batch["image"] = F.interpolate(batch["image"], image_size, mode="bilinear", antialias=True)
        for name in ("mask", "pointmap"):
            batch[name] = F.interpolate(batch[name], image_size, mode="nearest")
    return batch


def _mirror(raw: dict[str, Tensor], mirrored: Tensor) -> None:
    """Mirrors chosen samples: camera and object frame are both reflected in x, so R' = M R M is a rotation."""
    chosen = mirrored[:, None, None, None]
    sign = torch.tensor([-1.0, 1.0, 1.0], device=mirrored.device)
    raw["rgba"] = torch.where(chosen, raw["rgba"].flip(3), raw["rgba"])
    raw["points"] = torch.where(chosen, raw["points"].flip(3) * sign[:, None, None].half(), raw["points"])
    raw["rotation"] = torch.where(mirrored[:, None, None], raw["rotation"] * torch.outer(sign, sign), raw["rotation"])
    raw["translation"] = torch.where(mirrored[:, None], raw["translation"] * sign, raw["translation"])
    left, top, size = raw["window"].unbind(1)
    raw["window"] = torch.stack([torch.where(mirrored, 1 - left - size, left), top, size], dim=1)


def _moments(points: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Median position `[B, 3]` and median largest absolute deviation `[B]` of the known points."""
    flat = torch.where(known, points, torch.nan).flatten(2)
    shift = torch.nanmedian(flat, dim=2).values
    deviation = (flat - shift[:, :, None]).abs().amax(dim=1)
    return shift, torch.nanmedian(deviation, dim=1).values.clamp_min(1e-6)


def _window_coordinates(window: Tensor, size: int) -> Tensor:
    """Full-frame coordinates (x right, y down, 0..1) `[B, size, size, 2]` of the pixel centres of windows."""
    steps = (torch.arange(size, device=window.device) + 0.5) / size * window[:, 2:]
    x, y = window[:, :1] + steps, window[:, 1:2] + steps
    return torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)


class _Background:
    """A colour gradient per sample; for some, a second one below a horizon. Called with frame coordinates."""

    def __init__(self, uniform: Callable[..., Tensor]) -> None:
        base = uniform(2, 3)
        self.colors = torch.lerp(base[:, :1], base, 0.15 + 0.5 * uniform(1, 1))
        self.ground = torch.lerp(uniform(1, 3), self.colors, 0.4)
        angle = 6.2832 * uniform()
        self.direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        self.horizon = torch.where(uniform() < 0.4, 0.1 + 0.6 * uniform(), torch.full_like(angle, 9.0))

    def __call__(self, uv: Tensor) -> Tensor:
        along = ((uv - 0.5) * self.direction[:, None, None]).sum(-1).add(0.5).clamp(0, 1)[..., None]
        below = (uv[..., 1:] > self.horizon[:, None, None, None]).float()
        first = torch.lerp(self.colors[:, 0, None, None], self.ground[:, 0, None, None], below)
        second = torch.lerp(self.colors[:, 1, None, None], self.ground[:, 1, None, None], below)
        return torch.lerp(first, second, along).permute(0, 3, 1, 2)


class _Photographed:
    """A plain background for some samples, a cluttered one, often with another object in it, for the others."""

    def __init__(
        self,
        plain: Callable[[Tensor], Tensor],
        draws: Draws,
        looks: Tensor,
        color: Tensor,
        alpha: Tensor,
        window: Tensor,
    ) -> None:
        self.plain, self.looks = plain, looks
        self.cluttered = PhotographicBackground(plain, draws)
        self.behind = Neighbour.beside(color, alpha, window, draws, BEHIND, (0.3, 1.0))

    def __call__(self, uv: Tensor) -> Tensor:
        cluttered, _ = self.behind.over(self.cluttered(uv), uv)
        return torch.where(self.looks > 0, cluttered, self.plain(uv))


def _paste(
    color: Tensor, alpha: Tensor, mask: Tensor, points: Tensor, window: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The crop placed in the full frame: premultiplied RGBA `[B, 4, S, S]`, mask, points."""

    def coordinates(resolution: int) -> Tensor:
        frame = torch.tensor([[0.0, 0.0, 1.0]], device=window.device).expand(len(window), 3)
        uv = _window_coordinates(frame, resolution)
        return 2 * (uv - window[:, None, None, :2]) / window[:, None, None, 2:] - 1

    premultiplied = torch.cat([color * alpha, alpha], dim=1)
    fine = F.grid_sample(premultiplied, coordinates(2 * size), mode="bilinear", align_corners=False)
    stacked = torch.cat([mask, torch.nan_to_num(points)], dim=1)
    coarse = F.grid_sample(stacked, coordinates(size), mode="nearest", align_corners=False)
    return F.avg_pool2d(fine, 2), (coarse[:, :1] > 0.5).float(), coarse[:, 1:]


def _blurred(image: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _ground(raw: dict[str, Tensor], uv: Tensor, wanted: Tensor) -> Tensor:
    """Camera points `[B, 3, S, S]` of the plane under the object, NaN where unwanted or near the horizon."""
    tangents = (1 - 2 * uv) * raw["half_tangent"][:, None, None, None]
    rays = torch.cat([tangents, torch.ones_like(tangents[..., :1])], dim=-1)
    up = raw["rotation"][:, 2]  # the object's z axis in the camera frame
    level = (raw["translation"] * up).sum(1) + raw["scale"] * raw["bottom"]
    slope = (rays * up[:, None, None]).sum(-1)
    depth = level[:, None, None] / torch.where(slope.abs() < 1e-4, torch.full_like(slope, 1e-4), slope)
    limit = 4 * raw["translation"].norm(dim=1)[:, None, None]
    valid = ((depth > 0) & (depth < limit))[:, None] & wanted
    return torch.where(valid, (rays * depth[..., None]).permute(0, 3, 1, 2), torch.nan)
