"""Proposes objects without any click: what stands out from a smooth backdrop, such as a floor, a table or a wall.

`before_backdrop` of `backdrop.py` finds what stands out, and `things` finds which parts belong together. In a picture
without a smooth backdrop nothing is proposed, because colours and edges alone do not tell what is an object there.
"""

from __future__ import annotations

import numpy as np

from fastsam3d.marking.backdrop import MOST_OF_PICTURE, MOST_OF_RIM, before_backdrop, things
from fastsam3d.marking.geodesic import edge_costs, rim_of
from fastsam3d.marking.segmentation import WORKING_SIDE, Prompt, enlarged, opencv, refine, tidy

SMALLEST, LARGEST = 0.004, 0.6
"""Smallest and largest share of the picture that a proposed object covers."""
MOST = 16
"""Largest number of objects that are proposed."""


def propose(image: np.ndarray) -> list[np.ndarray]:
    """Finds the objects that stand out from a smooth backdrop; returns their masks, the largest first.

    Args:
        image: uint8 `[H, W, 3]`.

    Returns:
        bool `[H, W]` each, without overlap; none where the picture has no smooth backdrop.

    Raises:
        UserError: OpenCV is not installed.
    """
    cv2 = opencv()
    height, width = image.shape[:2]
    factor = min(1.0, WORKING_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if min(size) < 3:
        return []
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    stands_out = before_backdrop(cv2, small)
    if stands_out[rim_of(stands_out.shape)].mean() > MOST_OF_RIM or not 0 < stands_out.mean() <= MOST_OF_PICTURE:
        return []
    numbers = things(cv2, stands_out, edge_costs(cv2, small))
    sizes = np.bincount(numbers.ravel())
    found = [n for n in np.argsort(-sizes, kind="stable") if n and SMALLEST <= sizes[n] / numbers.size <= LARGEST]
    taken = np.zeros((height, width), dtype=bool)
    masks = []
    for number in found[:MOST]:
        whole = tidy(cv2, numbers == number, np.zeros(numbers.shape, dtype=bool))
        mask = enlarged(cv2, whole, width, height)
        mask = (refine(cv2, image, mask, Prompt()) if factor < 1 else mask) & ~taken
        if mask.sum() >= SMALLEST / 2 * mask.size:
            masks.append(mask)
            taken |= mask
    return masks
