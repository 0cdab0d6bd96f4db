"""Overlap of axis-aligned boxes, as the benchmarks of ScanNet scenes compute it."""

from __future__ import annotations

from collections.abc import Sequence

SMALL = 1e-8
"""Added to the union by the published evaluation. So the IoU of a box and half of it is just below 0.5: a miss."""

Box = Sequence[float]
"""Centre x, y, z and full extents x, y, z, in metres."""


def box_iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0..1; 0 for two boxes without volume.

    The formula is that of the public evaluation code of Chat-Scene, in double precision. Its small number `SMALL` is
    kept, so that scores can be compared.
    """
    shared, volumes = 1.0, [1.0, 1.0]
    for axis in range(3):
        low = [box[axis] - box[axis + 3] / 2 for box in (first, second)]
        high = [box[axis] + box[axis + 3] / 2 for box in (first, second)]
        shared *= max(min(high) - max(low), 0.0)
        volumes = [volume * (top - bottom) for volume, top, bottom in zip(volumes, high, low, strict=True)]
    return shared / (volumes[0] + volumes[1] - shared + SMALL)
