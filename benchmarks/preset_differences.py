"""Draws where the result of a preset differs from the unaccelerated one.

    python benchmarks/preset_differences.py preset=balanced objects=4 output=out/differences.png

Each line is a held-out object: its picture, the result of `off`, the result of the preset with the same noise, and the
first result again, coloured by the distance to the second. Distances are in percent of the diagonal of the object's
box. The objects are the first held-out ones: they are not chosen by their result.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

import fastsam3d
from fastsam3d.basics.options import option, parse_options, whole
from fastsam3d.evaluation.reporting.plot_style import figure_of, save
from fastsam3d.meshes.geometry import interpolate
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.nearest import nearest_on_surface
from fastsam3d.meshes.preview import highlight, render_mesh
from fastsam3d.procedural import HELD_OUT_SEED, make_view
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

LARGEST = 1.0
"""Distance, in percent of the diagonal, that has the darkest colour."""
AZIMUTH, ELEVATION = 20.0, 20.0


@dataclass(frozen=True)
class Options:
    """Options of the picture."""

    preset: str = option("balanced", str, "preset that is compared with off")
    objects: int = option(4, whole(1), "held-out objects")
    first: int = option(0, whole(0), "number of the first held-out seed")
    side: int = option(240, whole(64), "side of each view in pixels")
    output: str = option("out/differences.png", str, "the picture")


def main() -> int:
    """Prints the distances of each object and writes the picture."""
    options = parse_options(Options, sys.argv[1:], "preset_differences")
    pipeline = fastsam3d.load_pipeline("mini")
    figure = figure_of(2.0 * 4 + 0.9, 2.0 * options.objects + 0.3)
    axes = figure.subplots(options.objects, 4, squeeze=False)
    titles = ("picture", "off", options.preset, "distance between them")
    shown = None
    for line, row in enumerate(axes):
        view = make_view(HELD_OUT_SEED + options.first + line, size=384)
        plain, fast = both(pipeline, view, options.preset)
        distance = distances(plain, fast)
        print(
            f"{view.object.family}: mean {distance.mean():.2f} %, 95 of 100 points below "
            f"{np.percentile(distance, 95):.2f} %, largest {distance.max():.2f} %",
            flush=True,
        )
        pictures = [np.asarray(highlight(view.image, view.mask, options.side))]
        pictures += [drawn(mesh, mesh.vertex_colors, options.side) for mesh in (plain, fast)]
        pictures.append(drawn(plain, heat(distance), options.side))
        for axis, picture, title in zip(row, pictures, titles, strict=True):
            shown = axis.imshow(picture, cmap="magma_r", vmin=0, vmax=LARGEST)
            axis.set_axis_off()
            if line == 0:
                axis.set_title(title)
    figure.colorbar(shown, ax=axes, label="distance, % of the object's diagonal", shrink=0.8, extend="max")
    save(figure, options.output)
    return 0


def both(pipeline: Pipeline, view: object, preset: str) -> list[Mesh]:
    """The surfaces of `off` and of a preset, with the same noise."""
    meshes = []
    for name in ("off", preset):
        with fastsam3d.accelerate(pipeline, name):
            result = pipeline.run(view.image, view.mask, pointmap=view.pointmap, formats=["mesh"])  # type: ignore[attr-defined]
        assert result.mesh is not None
        meshes.append(result.mesh)
    return meshes


def distances(mesh: Mesh, other: Mesh) -> np.ndarray:
    """Distance of each vertex to another surface, percent of the diagonal of the mesh's box."""
    faces, weights = nearest_on_surface(mesh.vertices, other.vertices, other.faces, "distances", "bench")
    nearest = interpolate(other.vertices, other.faces, faces, weights)
    diagonal = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    return 100 * np.linalg.norm(mesh.vertices - nearest, axis=1) / diagonal


def heat(distance: np.ndarray) -> np.ndarray:
    """Colours `[N, 3]` of distances, as in the scale beside the picture."""
    from matplotlib import colormaps

    return colormaps["magma_r"](np.clip(distance / LARGEST, 0, 1))[:, :3]


def drawn(mesh: Mesh, colors: np.ndarray, side: int) -> np.ndarray:
    """A view of a mesh with other colours at its vertices."""
    return np.asarray(render_mesh(mesh.vertices, mesh.faces, colors, AZIMUTH, ELEVATION, side))


if __name__ == "__main__":
    sys.exit(main())
