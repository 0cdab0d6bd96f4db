"""Inputs beside their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.evaluation.metrics.pose_metrics import quaternion_to_matrix
from fastsam3d.evaluation.metrics.surfaces import as_array
from fastsam3d.evaluation.reporting.plot_style import INK, figure_of, save


def gallery(views: Sequence[Any], reconstructions: Sequence[Any], path: str | Path, *, columns: int = 4) -> Path:
    """Inputs beside their meshes, `columns` pairs a line.

    views: objects with `.image` (uint8 [H, W, 3]), `.mask` and optionally `.object.family` and `.pose`, in
    which case the mesh is seen from the side of the camera; reconstructions: what `Pipeline.run` returned for
    them.
    """
    from fastsam3d.meshes.preview import render_mesh

    lines = -(-len(views) // columns)
    figure = figure_of(3.2 * columns, 1.75 * lines)
    grid = figure.subplots(lines, 2 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for index, (view, reconstruction) in enumerate(zip(views, reconstructions, strict=True)):
        line, column = divmod(index, columns)
        left, right = grid[line, 2 * column], grid[line, 2 * column + 1]
        left.imshow(_around_object(view))
        left.set_title(getattr(getattr(view, "object", None), "family", ""), fontsize=8, color=INK, loc="left")
        mesh, pose = reconstruction.mesh, getattr(view, "pose", None)
        angles = (30.0, 20.0) if pose is None else camera_angles(pose)
        right.imshow(np.asarray(render_mesh(mesh.vertices, mesh.faces, mesh.vertex_colors, *angles)))
    return save(figure, path)


def _around_object(view: Any) -> np.ndarray:
    """The square part of the picture around the mask, with a margin; the whole picture without a mask."""
    mask = getattr(view, "mask", None)
    if mask is None or not np.any(mask):
        return view.image
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    half = 0.6 * max(rows[-1] - rows[0], columns[-1] - columns[0]) + 2
    slices = [
        slice(int(max(0, middle - half)), int(middle + half) + 1)
        for middle in ((rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2)
    ]
    return view.image[tuple(slices)]


def camera_angles(pose: Any) -> tuple[float, float]:
    """Azimuth and elevation (degrees, as in `viewpoint.view_rotation`) of the camera that sees `pose`."""
    towards = -as_array(pose.translation).reshape(3) @ quaternion_to_matrix(pose.rotation).T
    x, y, z = towards / max(float(np.linalg.norm(towards)), 1e-12)
    return float(np.degrees(np.arctan2(x, -y))), float(np.degrees(np.arcsin(np.clip(z, -1, 1))))
