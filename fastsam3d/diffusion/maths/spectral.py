"""Spatial frequency of an object: how much of its picture, or of its occupancy, is fine detail.

The high-frequency ratio (HFER) is the share of Fourier *amplitude* beyond a cut-off, without the mean. Thresholds
belong to this definition: with energy (squared amplitude) the same pictures score some fifty times lower.
Frequencies are in cycles a pixel or voxel, hence the measure does not depend on the size of a grid.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PICTURE_CUTOFF = 0.15
"""Cycles a pixel beyond which a picture's detail counts as fine (radius 38 of a 256-pixel spectrum)."""
VOXEL_CUTOFF = 0.125
"""Cycles a voxel beyond which occupancy detail counts as fine (radius 8 of a 64-voxel spectrum)."""
PICTURE_SIZE = 256
"""Longest side, in pixels, at which a picture is judged. Smaller crops are not enlarged: that only adds blur."""
CROP_MARGIN = 2

_LUMA = (0.299, 0.587, 0.114)


def min_max(values: Tensor) -> Tensor:
    """Scales `values` linearly to 0..1; a constant tensor becomes zero everywhere. Any shape."""
    low, high = values.min(), values.max()
    span = high - low
    return torch.where(
        span > 0, (values - low) / span.clamp_min(torch.finfo(values.dtype).tiny), torch.zeros_like(values)
    )


def _frequency(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Distance of every Fourier bin from zero frequency, cycles a sample."""
    axes = [torch.fft.fftfreq(n, device=device) for n in shape]
    grids = torch.meshgrid(*axes, indexing="ij")
    return torch.stack(grids).square().sum(0).sqrt()


def high_frequency_ratio(grid: Tensor, cutoff: float) -> float:
    """Share of the Fourier amplitude of `grid` (2D or 3D) at or beyond `cutoff` cycles a sample, mean left out.

    Returns:
        0..1; 0 for a constant grid.
    """
    amplitude = torch.fft.fftn(grid.float()).abs()
    amplitude.view(-1)[0] = 0.0
    total = amplitude.sum()
    # The transform of a constant grid is zero but for rounding; a ratio of rounding errors means nothing.
    if float(total) <= 1e-6 * grid.numel() * max(float(grid.abs().max()), 1e-30):
        return 0.0
    high = amplitude[_frequency(tuple(grid.shape), grid.device) >= cutoff].sum()
    return float(high / total)


def picture_detail(image: Tensor, mask: Tensor) -> float:
    """HFER of the object in a picture.

    The object's box (plus 2 pixels) is cut out, reduced to at most 256 pixels on its longer side with its aspect
    kept, filled with the object's mean grey outside the mask, and faded to the box's border by a Hann window, so
    that neither background nor box border counts as detail (Fast-SAM3D, spectral-aware token aggregation).

    Args:
        image: `[H, W, 3]`, uint8 or float.
        mask: `[H, W]`, bool; the object.

    Returns:
        0..1; 0 where the mask is empty or the object has one colour.
    """
    rows, columns = torch.nonzero(mask, as_tuple=True)
    if rows.numel() == 0:
        return 0.0
    top, bottom = max(int(rows.min()) - CROP_MARGIN, 0), int(rows.max()) + 1 + CROP_MARGIN
    left, right = max(int(columns.min()) - CROP_MARGIN, 0), int(columns.max()) + 1 + CROP_MARGIN
    grey = image[top:bottom, left:right, :3].float() @ torch.tensor(_LUMA, device=image.device)
    inside = mask[top:bottom, left:right].float()
    longest = max(grey.shape)
    if longest > PICTURE_SIZE:
        size = [max(1, round(side * PICTURE_SIZE / longest)) for side in grey.shape]
        both = F.interpolate(torch.stack([grey * inside, inside])[None], size=size, mode="area")[0]
        inside = both[1]
        grey = both[0] / inside.clamp_min(1e-6)
    mean = (grey * inside).sum() / inside.sum().clamp_min(1e-6)
    # Only the deviation from the mean is faded: a faded mean would itself look like an object.
    deviation = (grey - mean) * inside
    if float(deviation.abs().max()) <= 1e-4 * float(grey.abs().max()):
        return 0.0  # one colour: what is left is rounding
    window = [torch.hann_window(side + 2, periodic=False, device=grey.device)[1:-1] for side in grey.shape]
    return high_frequency_ratio(deviation * window[0][:, None] * window[1][None, :], PICTURE_CUTOFF)


def occupancy_detail(logits: Tensor) -> float:
    """HFER of the occupancy logits `[..., R, R, R]`: positive logits, zero elsewhere. Leading axes must be 1."""
    grid = logits.reshape(logits.shape[-3:])
    return high_frequency_ratio(grid.clamp_min(0.0), VOXEL_CUTOFF)


def fine_structure(logits: Tensor, coords: Tensor, cutoff: float = VOXEL_CUTOFF) -> Tensor:
    """Measures how much fine structure each occupied voxel carries.

    Args:
        logits: occupancy logits `[..., R, R, R]`, leading axes 1.
        coords: voxels `[N, 4]` (batch, x, y, z).
        cutoff: cycles a voxel.

    Returns:
        `[N]`, 0..1: magnitude of the high-passed positive logits, scaled to its range.
    """
    grid = logits.reshape(logits.shape[-3:]).float().clamp_min(0.0)
    spectrum = torch.fft.fftn(grid)
    spectrum = spectrum.masked_fill(_frequency(tuple(grid.shape), grid.device) < cutoff, 0.0)
    detail = torch.fft.ifftn(spectrum).real.abs()
    x, y, z = coords[:, 1:].long().unbind(1)
    return min_max(detail[x, y, z])
