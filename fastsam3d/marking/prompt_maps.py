"""Turns a picture and its marks into the maps that the marking network reads: pure functions on batches.

The maps hold the picture in Lab colours, the marks, and cues that are known to find objects: geodesic distances from
the marks (Bai and Sapiro, ICCV 2007), distances in colour, and how well a pixel's colour fits the histogram of the
object so far (Boykov and Jolly, ICCV 2001). So the network only has to weigh these cues.

Shapes: B pictures of H x W pixels; h, w = H / 2, W / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.marking.segmentation import Prompt

CHANNELS = 28
"""Number of channels of the result of `prompt_maps`."""
STRIDE = 2
"""Side, in pixels of the picture, of one place of the maps."""
COARSE = 4
"""Side, in pixels of the picture, of one place of the grid on which geodesic distances are computed."""
CLICK_RADIUS = 3.5
"""Radius, in pixels of the picture, of the disc that a click stands for."""
NEAR = 24.0
"""Distance, in pixels, over which the nearness of a click falls by the factor e."""
COLOUR_SCALE, PATH_SCALE = 20.0, 6.0
"""Distances in Lab, and along paths, over which nearness falls by the factor e."""
BINS = (8, 12, 12)
"""Numbers of bins of the histograms, for L, a and b."""


@dataclass(frozen=True)
class PictureMaps:
    """The part of the maps that does not depend on the marks.

    Attributes:
        fixed: channels for the network `[B, 15, h, w]`: Lab colours of all pixels, place, and local contrast.
        lab: mean colours `[B, 3, h, w]`.
        costs: of stepping onto a place of the coarse grid `[B, H / 4, W / 4]`.
    """

    fixed: Tensor
    lab: Tensor
    costs: np.ndarray


def picture_maps(images: Tensor) -> PictureMaps:
    """Prepares pictures, uint8 `[B, 3, H, W]`, sRGB; H and W are multiples of `COARSE`."""
    lab = lab_colours(images)
    small = F.avg_pool2d(lab, STRIDE)
    height, width = small.shape[2:]
    rows = ((torch.arange(height) + 0.5) / height * 2 - 1)[:, None].expand(height, width)
    columns = ((torch.arange(width) + 0.5) / width * 2 - 1)[None].expand(height, width)
    contrast = small.sub(F.avg_pool2d(small, 9, 1, 4, count_include_pad=False)).abs().mean(1, keepdim=True) / 10
    place = torch.stack([rows, columns]).expand(len(images), -1, -1, -1)
    centred = (lab - lab.new_tensor([50.0, 0.0, 0.0]).view(1, 3, 1, 1)) / 40
    fixed = torch.cat([F.pixel_unshuffle(centred, STRIDE), place, contrast], dim=1)
    return PictureMaps(fixed, small, step_costs(F.avg_pool2d(small, COARSE // STRIDE)))


def step_costs(lab: Tensor) -> np.ndarray:
    """Computes the cost of stepping onto each place `[B, H, W]`: small in plain areas, large across edges.

    Args:
        lab: colours in CIE Lab `[B, 3, H, W]`.
    """
    scaled = lab * lab.new_tensor([0.5, 1.0, 1.0]).view(1, 3, 1, 1)  # shadows are edges of lightness alone
    wide = F.pad(scaled, (1, 1, 1, 1), mode="replicate")
    across, down = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2], wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    return np.asarray((0.05 + (across.square() + down.square()).sum(1) / 144).numpy())


def prompt_maps(pictures: PictureMaps, prompts: Sequence[Prompt], previous: Tensor) -> Tensor:
    """Makes the input of the marking network.

    Args:
        pictures: of `picture_maps`.
        prompts: B of them, in pixels of the pictures.
        previous: the last answer `[B, 1, H, W]`, 0..1; zeros where there is none.

    Returns:
        fp32 `[B, CHANNELS, h, w]`.
    """
    before = F.avg_pool2d(previous, STRIDE)
    rows = (torch.arange(before.shape[2]) + 0.5)[:, None] * STRIDE
    columns = (torch.arange(before.shape[3]) + 0.5)[None] * STRIDE
    pairs = zip(prompts, pictures.lab, strict=True)
    marks = torch.stack([_mark_maps(prompt, lab, rows, columns) for prompt, lab in pairs])
    each = zip(pictures.lab, before, marks, prompts, strict=True)
    fits = torch.stack([_colour_fit(*parts) for parts in each])[:, None]
    return torch.cat([pictures.fixed, marks, before, _path_maps(pictures, marks), fits], dim=1)


def lab_colours(images: Tensor) -> Tensor:
    """Converts sRGB pictures, uint8 `[B, 3, H, W]`, to CIE Lab (D65) `[B, 3, H, W]`."""
    values = images.float() / 255
    linear = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = linear.new_tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    white = matrix.sum(1)
    xyz = torch.einsum("ij,bjhw->bihw", matrix / white[:, None], linear)
    root = torch.where(xyz > 0.008856, xyz.clamp_min(1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _mark_maps(prompt: Prompt, lab: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Discs and nearness of clicks on and off the object, the box, its edges, and nearness in colour, `[8, h, w]`."""
    height, width = lab.shape[1:]
    maps = lab.new_zeros(8, height, width)
    far: dict[bool, list[Tensor]] = {True: [], False: []}
    unlike: dict[bool, list[Tensor]] = {True: [], False: []}
    for x, y, inside in prompt.clicks:
        square = (rows - y) ** 2 + (columns - x) ** 2
        disc = (square <= CLICK_RADIUS**2).float()
        first = 0 if inside else 1
        maps[first] = torch.maximum(maps[first], disc)
        maps[1 - first] *= 1 - disc  # the later click counts
        far[inside].append(square)
        row, column = min(max(int(y / STRIDE), 0), height - 1), min(max(int(x / STRIDE), 0), width - 1)
        around = lab[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].flatten(1).mean(1)
        unlike[inside].append((lab - around[:, None, None]).square().sum(0))
    for number, inside in enumerate((True, False)):
        if far[inside]:
            maps[2 + number] = torch.exp(-torch.stack(far[inside]).amin(0).sqrt() / NEAR)
            maps[6 + number] = torch.exp(-torch.stack(unlike[inside]).amin(0).sqrt() / COLOUR_SCALE)
    if prompt.box is not None:
        left, top, right, bottom = prompt.box
        depth = torch.minimum(
            torch.minimum(columns - left, right - columns).expand(height, width),
            torch.minimum(rows - top, bottom - rows).expand(height, width),
        )
        maps[4] = (depth > 0).float()
        maps[5] = (depth / max(min(right - left, bottom - top) / 2, 1.0)).clamp(-1, 1)
    return maps


def _path_maps(pictures: PictureMaps, marks: Tensor) -> Tensor:
    """Nearness along paths that shun edges to the marks on and off the object, and which is nearer, `[B, 3, h, w]`."""
    factor, costs = COARSE // STRIDE, pictures.costs
    discs = F.max_pool2d(marks, factor)
    on, off = discs[:, 0] > 0, discs[:, 1] > 0
    boxed = (marks[:, 4].flatten(1).amax(1) > 0)[:, None, None]
    outside = F.avg_pool2d(marks[:, 4:5], factor)[:, 0] < 0.5
    rim = torch.ones_like(outside)
    rim[:, 1:-1, 1:-1] = False
    away = off | torch.where(boxed, outside, rim & (discs[:, 2] < 0.4))
    distances = geodesic_distances(np.concatenate([costs, costs]), torch.cat([on, away]).numpy())
    to_object, to_rest = torch.from_numpy(distances).clamp(max=1e4).chunk(2)
    share = to_rest / (to_object + to_rest).clamp_min(1e-6)
    maps = torch.stack([torch.exp(-to_object / PATH_SCALE), torch.exp(-to_rest / PATH_SCALE), share], dim=1)
    return F.interpolate(maps, marks.shape[2:], mode="bilinear", align_corners=False)


def geodesic_distances(costs: np.ndarray, sources: np.ndarray, sweeps: int = 2) -> np.ndarray:
    """Computes nearly the costs of the cheapest paths; `geodesic.geodesic_distance` for a batch.

    Args:
        costs: `[B, H, W]`, cost of stepping onto a pixel, positive.
        sources: bool `[B, H, W]`.
        sweeps: passes in the four directions.

    Returns:
        fp32 `[B, H, W]`; infinite where there is no source.
    """
    distance = np.where(sources, 0.0, np.inf).astype(np.float32)
    for _ in range(sweeps):
        for turn in range(4):
            turned = np.rot90(distance, turn, axes=(1, 2)).transpose(1, 0, 2).copy()
            _sweep_down(turned, np.ascontiguousarray(np.rot90(costs, turn, axes=(1, 2)).transpose(1, 0, 2)))
            distance = np.rot90(turned.transpose(1, 0, 2), -turn, axes=(1, 2))
    return np.ascontiguousarray(distance)


def _sweep_down(distance: np.ndarray, costs: np.ndarray) -> None:
    """One pass over the rows of `[H, B, W]`, in place."""
    slanted = costs * np.float32(np.sqrt(2))
    for row in range(1, len(distance)):
        above, here = distance[row - 1], distance[row]
        np.minimum(here, above + costs[row], out=here)
        np.minimum(here[:, 1:], above[:, :-1] + slanted[row, :, 1:], out=here[:, 1:])
        np.minimum(here[:, :-1], above[:, 1:] + slanted[row, :, :-1], out=here[:, :-1])


def _colour_fit(lab: Tensor, before: Tensor, marks: Tensor, prompt: Prompt) -> Tensor:
    """How well each pixel's colour fits the object rather than the rest, 0..1, `[h, w]`.

    The object is the last answer; before there is one, the box, or the surroundings of the clicks on it.
    """
    known = before[0]
    if float(known.max()) > 0.5:
        inside, outside = known, 1 - known
    elif prompt.box is not None:
        inside, outside = (marks[5] > 0.2).float(), (marks[4] == 0).float()
    else:
        rim = torch.ones_like(known)
        rim[3:-3, 3:-3] = 0.0
        inside, outside = marks[2] ** 2, torch.maximum(rim, marks[3] ** 2) * (1 - marks[2])
    shape = lab.new_tensor(BINS)
    low, high = lab.new_tensor([0.0, -60.0, -60.0]), lab.new_tensor([100.0, 60.0, 60.0])
    index = ((lab.permute(1, 2, 0) - low) / (high - low) * shape).long()
    index = torch.minimum(index.clamp_min(0), shape.long() - 1)
    flat = ((index[..., 0] * BINS[1] + index[..., 1]) * BINS[2] + index[..., 2]).flatten()
    counts = torch.stack([torch.bincount(flat, w.flatten(), BINS[0] * BINS[1] * BINS[2]) for w in (inside, outside)])
    counts = counts / counts.sum(1, keepdim=True).clamp_min(1e-6)
    smooth = F.avg_pool3d(counts.view(2, 1, *BINS), 3, 1, 1, count_include_pad=False).flatten(1)
    counts = 0.5 * counts + 0.5 * smooth
    fit = (counts[0] + 1e-4) / (counts.sum(0) + 2e-4)
    return fit[flat].view(known.shape)
