"""Turns clicks and boxes on a picture into a mask, without a network: pure functions, the plain twin of `learned.py`.

The first guess depends on the marks. With a box, all pixels inside of it are the object. A click on something that
stands before a smooth backdrop selects all of it (`backdrop.py`). In any other picture each pixel belongs to the
nearest click, along paths that avoid edges (geodesic distances, as in Bai and Sapiro, "A Geodesic Framework for Fast
Interactive Image and Video Segmentation", ICCV 2007); the rim of the picture counts as background.

Then GrabCut (Rother et al., "GrabCut", SIGGRAPH 2004; the implementation of OpenCV) fits colours to object and
background and cuts between them: first in a reduced picture, then in a band about the outline.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.marking.backdrop import standing_out
from fastsam3d.marking.geodesic import edge_costs, geodesic_distance, rim_of

WORKING_SIDE = 256
"""Longest side, in pixels, of the reduced picture that is segmented first; the mask is then enlarged to the picture."""
SEED_RADIUS = 2
"""Radius, in working pixels, of the disc that a click stands for."""
ITERATIONS = 5
"""Iterations of GrabCut."""
REACH = 3.0
"""How many times farther from the object's clicks than from the background a pixel may be to be the object's."""
MINIMUM_SIDE = 8
"""Narrowest picture, in pixels, and smallest box, in working pixels, that can be segmented."""
REFINED_SIDE = 384
"""Longest side, in pixels, of the piece of the picture about the object in which its outline is found again."""
BAND = 2.5
"""Half width, in working pixels of the first pass, of the band about its outline that the second decides on."""
ROOM = 0.35
"""Width of the surroundings of a box that are used, as a share of its longer side."""
LEAST_OF_BOX, CORE = 0.25, 0.35
"""If a mask covers less than the first share of its box, the cut is repeated. Then an ellipse in the middle of the box,
with axes of the second share of its sides, counts as the object."""
SMALLEST_PIECE = 0.05
"""Pieces of a mask below this share of its largest are dropped, unless a click is on them."""


@dataclass(frozen=True)
class Prompt:
    """Clicks and a box that a person marked, in pixels of the picture: x to the right, y down.

    Attributes:
        clicks: (x, y, whether the object is there).
        box: (left, top, right, bottom) around the object; None without.
    """

    clicks: tuple[tuple[float, float, bool], ...] = field(default=())
    box: tuple[float, float, float, float] | None = None

    @property
    def is_empty(self) -> bool:
        """Tells whether the prompt is empty: it has neither a box nor a click on the object."""
        return self.box is None and not any(inside for _, _, inside in self.clicks)


class Segmenter(Protocol):
    """Picture uint8 `[H, W, 3]` and prompt to a mask, bool `[H, W]`; may be empty."""

    def __call__(self, image: np.ndarray, prompt: Prompt) -> np.ndarray: ...


def segment(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    """Makes the mask of a prompt without a network.

    Args:
        image: uint8 `[H, W, 3]`.

    Returns:
        bool `[H, W]`; all false where the prompt is empty.

    Raises:
        UserError: the picture or the box is too small, or OpenCV is not installed.
    """
    height, width = image.shape[:2]
    if min(height, width) < MINIMUM_SIDE:
        raise UserError(f"The picture is {width} x {height} pixels; at least {MINIMUM_SIDE} a side can be segmented.")
    if prompt.is_empty:
        return np.zeros((height, width), dtype=bool)
    cv2 = opencv()
    left, top, right, bottom = marked_window(prompt, width, height)
    if (right - left, bottom - top) != (width, height):
        result = np.zeros((height, width), dtype=bool)
        piece = np.ascontiguousarray(image[top:bottom, left:right])
        result[top:bottom, left:right] = _segment_whole(cv2, piece, moved_prompt(prompt, left, top))
        return result
    return _segment_whole(cv2, image, prompt)


def marked_window(prompt: Prompt, width: int, height: int) -> tuple[int, int, int, int]:
    """Returns the part of the picture around a box and its clicks, (left, top, right, bottom); without a box, all."""
    if prompt.box is None:
        return 0, 0, width, height
    left, top, right, bottom = prompt.box
    room = ROOM * max(right - left, bottom - top)
    x, y = [point[0] for point in prompt.clicks], [point[1] for point in prompt.clicks]
    first = min([left - room, *x]), min([top - room, *y])
    last = max([right + room, *x]), max([bottom + room, *y])
    left, top = (max(0, int(value)) for value in first)
    right, bottom = min(width, int(np.ceil(last[0])) + 1), min(height, int(np.ceil(last[1])) + 1)
    inside = right - left >= MINIMUM_SIDE and bottom - top >= MINIMUM_SIDE
    return (left, top, right, bottom) if inside else (0, 0, width, height)


def _segment_whole(cv2: Any, image: np.ndarray, prompt: Prompt) -> np.ndarray:
    height, width = image.shape[:2]
    factor = min(1.0, WORKING_SIDE / max(height, width))
    rows, columns = max(MINIMUM_SIDE, round(height * factor)), max(MINIMUM_SIDE, round(width * factor))
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    scaled = scale_prompt(prompt, columns / width, rows / height)
    mask = enlarged(cv2, _segment_small(cv2, small, scaled), width, height)
    return refine(cv2, image, mask, prompt) if factor < 1 else mask


def scale_prompt(prompt: Prompt, horizontal: float, vertical: float) -> Prompt:
    """Returns the prompt in pixels of a resized picture."""
    box = prompt.box
    return Prompt(
        tuple((x * horizontal, y * vertical, inside) for x, y, inside in prompt.clicks),
        None if box is None else (box[0] * horizontal, box[1] * vertical, box[2] * horizontal, box[3] * vertical),
    )


def moved_prompt(prompt: Prompt, left: float, top: float) -> Prompt:
    """Returns the prompt in pixels of a piece of the picture whose upper left corner is (left, top)."""
    box = prompt.box
    return Prompt(
        tuple((x - left, y - top, inside) for x, y, inside in prompt.clicks),
        None if box is None else (box[0] - left, box[1] - top, box[2] - left, box[3] - top),
    )


def seeds(shape: tuple[int, int], prompt: Prompt, radius: int = SEED_RADIUS) -> tuple[np.ndarray, np.ndarray]:
    """Finds the pixels that the prompt alone decides: (of the object, of the background), bool `[H, W]` each.

    Clicks are discs, the later over the earlier. All outside of the box is background; without a box the rim of
    the picture is, except near a click on the object.
    """
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    of_object, of_background = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    if prompt.box is None:
        of_background[[0, -1], :] = True
        of_background[:, [0, -1]] = True
        for x, y, inside in prompt.clicks:
            if inside:
                # The object may reach the rim beside a click.
                of_background &= (rows - y) ** 2 + (columns - x) ** 2 > (max(shape) / 8) ** 2
    else:
        left, top, right, bottom = prompt.box
        of_background = (columns < left) | (columns >= right) | (rows < top) | (rows >= bottom)
    for x, y, inside in prompt.clicks:
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        of_object = of_object | disc if inside else of_object & ~disc
        of_background = of_background & ~disc if inside else of_background | disc
    return of_object, of_background


def _segment_small(cv2: Any, image: np.ndarray, prompt: Prompt) -> np.ndarray:
    shape = image.shape[:2]
    box = prompt.box
    if box is not None and min(box[2] - box[0], box[3] - box[1]) < MINIMUM_SIDE / 2:
        raise UserError("The box is too small: draw it around the whole object.")
    of_object, of_background = seeds(shape, prompt)
    if box is not None:
        labels = np.full(shape, cv2.GC_PR_FGD, dtype=np.uint8)
    elif (whole := standing_out(cv2, image, prompt.clicks, SEED_RADIUS)) is not None:
        labels = _about_the_outline(cv2, whole)
        of_background = seeds(shape, replace(prompt, box=(0, 0, shape[1], shape[0])))[1]  # the rim stands for nothing
    else:
        costs = edge_costs(cv2, image)
        near = geodesic_distance(costs, of_object)
        far = geodesic_distance(costs, of_background)
        labels = np.where(near < far, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        # Colours that another object has as well must not carry the cut over to it.
        labels[near > REACH * far] = cv2.GC_BGD
    labels[of_background], labels[of_object] = cv2.GC_BGD, cv2.GC_FGD
    found = tidy(cv2, cut(cv2, image, labels), of_object)
    if box is not None and not prompt.clicks and found.sum() < LEAST_OF_BOX * (~of_background).sum():
        # The colours of the object are those of the background as well: its middle is said to be the object.
        labels[_ellipse(shape, box, CORE) & ~of_background] = cv2.GC_FGD
        found = tidy(cv2, cut(cv2, image, labels), of_object)
    return found


def _ellipse(shape: tuple[int, ...], box: tuple[float, float, float, float], part: float) -> np.ndarray:
    """The middle of a box, bool `[H, W]`: an ellipse whose axes are a part of the box's sides."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    left, top, right, bottom = box
    x = (columns + 0.5 - (left + right) / 2) / max((right - left) / 2, 1e-6)
    y = (rows + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 1e-6)
    return x**2 + y**2 < part**2


def _about_the_outline(cv2: Any, inside: np.ndarray) -> np.ndarray:
    """Labels for a cut that may move the outline by two pixels."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.dilate(inside.astype(np.uint8), disc) == 0] = cv2.GC_BGD
    labels[cv2.erode(inside.astype(np.uint8), disc) > 0] = cv2.GC_FGD
    return labels


def refine(cv2: Any, image: np.ndarray, mask: np.ndarray, prompt: Prompt) -> np.ndarray:
    """Finds the outline of a mask again at a finer scale, in a band about the old one; returns the new mask.

    Args:
        image: uint8 `[H, W, 3]`.
        mask: bool `[H, W]`, right but for the width of the band.
        prompt: clicks stay on their side, and the box stays the limit.
    """
    if not mask.any():
        return mask
    height, width = mask.shape
    reach = BAND * max(height, width) / WORKING_SIDE
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    margin = int(np.ceil(3 * reach))
    top, bottom = max(0, rows[0] - margin), min(height, rows[-1] + 1 + margin)
    left, right = max(0, columns[0] - margin), min(width, columns[-1] + 1 + margin)
    factor = min(1.0, REFINED_SIDE / max(bottom - top, right - left))
    size = max(1, round((right - left) * factor)), max(1, round((bottom - top) * factor))
    piece = cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(mask[top:bottom, left:right].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    scaled = scale_prompt(moved_prompt(prompt, left, top), size[0] / (right - left), size[1] / (bottom - top))
    of_object, of_background = seeds((size[1], size[0]), scaled)
    if scaled.box is None:
        of_background = of_background & ~rim_of(of_background.shape)  # the rim here is none of the picture's
    to_outside = cv2.distanceTransform(coarse, cv2.DIST_L2, 3)
    to_inside = cv2.distanceTransform(1 - coarse, cv2.DIST_L2, 3)
    labels = np.where(coarse > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[to_outside > reach * factor], labels[to_inside > reach * factor] = cv2.GC_FGD, cv2.GC_BGD
    labels[of_background], labels[of_object] = cv2.GC_BGD, cv2.GC_FGD
    result = np.zeros_like(mask)
    result[top:bottom, left:right] = enlarged(cv2, cut(cv2, piece, labels), right - left, bottom - top)
    return result


def enlarged(cv2: Any, inside: np.ndarray, width: int, height: int) -> np.ndarray:
    """Enlarges a mask bool `[h, w]` to the size of the picture, bool `[height, width]`."""
    # As a soft edge that is split at half, so that the outline is smooth and not a staircase.
    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.8)
    return cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def cut(cv2: Any, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Finds the pixels of the object, bool `[H, W]`, by GrabCut from its labels, uint8 `[H, W]`."""
    known = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if known.all() or not known.any():
        return known
    state = labels.copy()
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # the mixtures begin with random centres: one prompt gives one mask
    cv2.grabCut(np.ascontiguousarray(image[..., ::-1]), state, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return np.isin(state, (cv2.GC_FGD, cv2.GC_PR_FGD))


def tidy(cv2: Any, inside: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Removes specks and pinholes from a mask: keeps the pieces under the clicks, or without clicks the large ones.

    Args:
        inside: bool `[H, W]`.
        keep: bool `[H, W]`, pixels of the object's clicks.
    """
    count, pieces, sizes, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    if count <= 1:
        return inside
    areas = sizes[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    under = np.unique(pieces[keep & inside])
    wanted = under[under > 0] if (under > 0).any() else np.flatnonzero(areas >= SMALLEST_PIECE * areas.max())
    result = np.isin(pieces, wanted)
    holes, gaps, gap_sizes, _ = cv2.connectedComponentsWithStats((~result).astype(np.uint8), connectivity=4)
    small = [i for i in range(1, holes) if gap_sizes[i, cv2.CC_STAT_AREA] < 0.005 * result.sum()]
    return result | np.isin(gaps, small)


def opencv() -> Any:
    """Imports and returns the module `cv2`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise UserError(
            "Marking objects by boxes or points needs OpenCV, which is not installed: pip install 'fastsam3d[demo]'. "
            "A mask from a file works without it."
        ) from None
    return cv2
