"""Finds objects that stand out from a smooth backdrop, such as a floor, a table or a wall, from one click.

The backdrop is modelled by a polynomial: the logarithm of the colours as a function of the place in the picture. It is
fitted by iteratively reweighted least squares with weights like Cauchy's, so that pixels far from the model count
little. A shadow lowers the logarithms of all three channels by nearly the same amount. So a pixel may be much darker
than the model and still count as backdrop, but only a little different in colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastsam3d.marking.geodesic import edge_costs, geodesic_distance, rim_of

OFFSET = 16.0
"""Is added to the colours (0 to 255) before the logarithm, so that noise of dark pixels is not enlarged."""
COLOUR, BRIGHTER, DARKER = 0.1, 0.3, 1.0
"""Differences of the logarithms from which a pixel stands out: in colour, and in brightness upwards and downwards."""
INNER_WEIGHT = 0.15
"""Weight of a pixel inside of the picture. Pixels near its rim, which are backdrop more often, have the weight 1."""
RIM = 0.06
"""Width of that rim, as a share of the picture's shorter side."""
ROUNDS = 10
"""Rounds of the reweighted fit."""
MOST_OF_RIM, MOST_OF_PICTURE = 0.35, 0.75
"""If more than these shares of the rim or of the picture stand out, the picture has no smooth backdrop."""
FREE_RIM, LEAST = 0.07, 0.03
"""Things stand free before the backdrop if less than the first share of the rim stands out, and more than the second
share of the picture."""
REACH = 3.0
"""A click changes the mask up to so many times its own distance from the outline. So a click near the outline corrects
the outline, and a click in the middle of a neighbour removes the neighbour."""
PLAIN, SPECK, FAR = 1.5, 12, 6.0
"""Cost below which a pixel is not on an edge; smallest area, in pixels, that counts; distance in pixels up to which the
pixels of an edge are added to the nearest area."""
TOUCHING = 0.8
"""Two areas are one thing if their common border is at least this many times the side of the smaller one (the root of
its number of pixels). Diagonal steps of the border count twice."""
NEARER, NO_FARTHER = 0.5, 0.9
"""An added part must be nearer to the click than this share of its distance to the rim. A click on the background
removes pixels up to this share of its own distance to the clicks on the object. Distances are geodesic."""


def departure(cv2: Any, image: np.ndarray) -> np.ndarray:
    """Measures how far each pixel is from the backdrop; above 1 it stands out.

    Args:
        image: uint8 `[H, W, 3]`.

    Returns:
        `[H, W]`, not negative.
    """
    height, width = image.shape[:2]
    smooth = cv2.bilateralFilter(image, 5, 30, 3).astype(np.float64)
    colours = np.log((smooth + OFFSET) / (255 + OFFSET)).reshape(-1, 3)
    rows, columns = np.mgrid[:height, :width]
    y, x = rows.ravel() / height * 2 - 1, columns.ravel() / width * 2 - 1
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y, y**3], axis=1)
    margin = max(2, round(RIM * min(height, width)))
    inner = np.zeros((height, width), dtype=bool)
    inner[margin:-margin, margin:-margin] = True
    prior = np.where(inner.ravel(), INNER_WEIGHT, 1.0)
    weights, result = prior, prior
    for _ in range(ROUNDS):
        weighted = terms * weights[:, None]
        # The small diagonal keeps the system solvable in a picture that is a handful of pixels.
        fit = np.linalg.solve(weighted.T @ terms + 1e-3 * np.eye(terms.shape[1]), weighted.T @ colours)
        off = colours - terms @ fit
        light = off.mean(axis=1)
        colour = np.linalg.norm(off - light[:, None], axis=1)
        # Shadows are lit by the sky alone, which tints them: more colour is allowed the darker it is.
        tint = COLOUR * (1 + np.clip(-light, 0, 2))
        result = (colour / tint) ** 2 + np.where(light > 0, light / BRIGHTER, light / DARKER) ** 2
        weights = prior / (1 + result) ** 2
    return result.reshape(height, width)


def before_backdrop(cv2: Any, image: np.ndarray) -> np.ndarray:
    """Finds the pixels of a picture, uint8 `[H, W, 3]`, that stand out from its backdrop; returns bool `[H, W]`.

    Specks are removed.
    """
    far_off = (departure(cv2, image) > 1).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(far_off, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0)


def free_before_backdrop(cv2: Any, image: np.ndarray) -> bool:
    """Tells whether what stands out hardly touches the rim, so that all of it is seen before a smooth backdrop."""
    stands_out = before_backdrop(cv2, image)
    return bool(stands_out[rim_of(image.shape[:2])].mean() < FREE_RIM and LEAST < stands_out.mean() <= MOST_OF_PICTURE)


def standing_out(
    cv2: Any, image: np.ndarray, clicks: Sequence[tuple[float, float, bool]], radius: float
) -> np.ndarray | None:
    """Selects pixels that stand out from the backdrop and belong to the clicks on the object, not to other clicks.

    Args:
        image: uint8 `[H, W, 3]`.
        clicks: (x, y, whether the object is there), at least one of them on the object.
        radius: of the disc that a click stands for, pixels.

    Returns:
        bool `[H, W]`; None if the picture has no smooth backdrop, or if the first click on the object is on the
        backdrop.
    """
    shape = image.shape[:2]
    stands_out = before_backdrop(cv2, image)
    rim = rim_of(shape)
    if stands_out[rim].mean() > MOST_OF_RIM or stands_out.mean() > MOST_OF_PICTURE:
        return None
    costs = edge_costs(cv2, image)
    pieces = things(cv2, stands_out, costs)
    places = [(x, y) for x, y, inside in clicks if inside]
    on = [_disc(shape, x, y, radius) for x, y in places]
    off = [(x, y, _disc(shape, x, y, radius * 0.75)) for x, y, inside in clicks if not inside]
    under = [int(np.bincount(pieces[disc]).argmax()) if disc.any() else 0 for disc in on]
    if not under or under[0] == 0:
        return None
    of_object = np.logical_or.reduce(on)
    whole = np.isin(pieces, [piece for piece in under if piece])
    result = whole | of_object
    away = cv2.distanceTransform((~whole).astype(np.uint8), cv2.DIST_L2, 3)
    for (x, y), disc, piece in zip(places, on, under, strict=True):
        if piece == 0 and disc.any():
            # On the backdrop, or on what has its colours: what is alike about the click, not out to the rim.
            near, far = geodesic_distance(costs, disc), geodesic_distance(costs, rim)
            alike = (near < NEARER * far) & (near < NEARER * np.median(far[disc]))
            result |= alike & _disc(shape, x, y, REACH * float(away[disc].max()) + 2)
    for x, y, disc in off:
        disc = disc & ~of_object
        if (disc & result).any():
            depth = float(cv2.distanceTransform(result.astype(np.uint8), cv2.DIST_L2, 3)[disc].max())
            to_object, to_click = geodesic_distance(costs, of_object), geodesic_distance(costs, disc)
            near = to_click < np.minimum(to_object, NO_FARTHER * to_object[disc].mean())
            result &= ~(near & _disc(shape, x, y, REACH * depth + 2)) & ~disc
    result |= of_object
    pieces = cv2.connectedComponents(result.astype(np.uint8))[1]
    return np.isin(pieces, np.unique(pieces[of_object]))


def things(cv2: Any, stands_out: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Numbers the connected regions that stand out, from 1 on, `[H, W]`; 0 is the backdrop.

    Parts of one thing have a long common border. Things that only touch, or cover a corner of each other, have a short
    one. So areas without an edge inside are joined, those with the longest common border first, until no border is
    longer than `TOUCHING` times the side of the smaller area.

    Args:
        stands_out: bool `[H, W]`, not true everywhere.
        costs: of `edge_costs`, `[H, W]`.
    """
    count, areas = cv2.connectedComponents((stands_out & (costs < PLAIN)).astype(np.uint8), connectivity=4)
    sizes = np.bincount(areas.ravel(), minlength=count)
    areas[(sizes < SPECK)[areas]] = 0
    unknown = areas == 0
    # Edges and specks go to the nearest area, within what stands out.
    nearest, labels = cv2.distanceTransformWithLabels(
        unknown.astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    of_label[labels[~unknown]] = areas[~unknown]
    areas = np.where(stands_out & (nearest < FAR), of_label[labels], 0)
    rest = cv2.connectedComponents((stands_out & (areas == 0)).astype(np.uint8))[1]
    areas = np.where(rest > 0, rest + count, areas)
    areas = np.unique(np.where(stands_out, areas, -1), return_inverse=True)[1].reshape(stands_out.shape)
    number = int(areas.max()) + 1
    border = np.zeros((number, number))
    for a, b in ((areas[1:], areas[:-1]), (areas[:, 1:], areas[:, :-1])):
        np.add.at(border, (a, b), 1.0)
    border += border.T
    np.fill_diagonal(border, 0)
    border[0], border[:, 0] = 0, 0  # the backdrop is joined with nothing
    size = np.bincount(areas.ravel(), minlength=number).astype(float)
    owner = np.arange(number)
    while number > 1:
        ratio = border / np.sqrt(np.minimum.outer(size, size))
        first, second = divmod(int(ratio.argmax()), number)
        if ratio[first, second] < TOUCHING:
            break
        owner[owner == second] = first
        size[first] += size[second]
        border[first] += border[second]
        border[:, first] += border[:, second]
        border[second], border[:, second], border[first, first] = 0, 0, 0
    return owner[areas]


def _disc(shape: tuple[int, ...], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2
