"""Measures the small model on real photographs with masks that were drawn by hand.

    python benchmarks/photographs.py folder=FOLDER output=out/photographs
    python benchmarks/photographs.py folder=FOLDER output=out/photographs earlier=DIR    # beside other weights

`fastsam3d.evaluation.photographs` says how to fill FOLDER. The measure is `outline_iou`: the result is seen from its
own pose, its outline is laid over the mask, box over box, and the intersection over union is computed. The mean over
several seeds is given. `photographs.csv` has a line per object. `photographs.jpg` shows those whose licence allows it.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import fastsam3d
from fastsam3d.basics.options import option, optional_text, parse_options, whole
from fastsam3d.evaluation.photographs.photographs import Found, find_objects
from fastsam3d.meshes.preview import highlight, render_mesh
from fastsam3d.sam3d.pipeline.pipeline import Pipeline
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction

FREE = ("public domain", "CC0")
"""Beginnings of the names of licences that allow to show a photograph without conditions."""
VIEWS = (20.0, -25.0, 110.0)
"""Azimuths of the drawn views, in degrees."""


@dataclass(frozen=True)
class Options:
    """Options of the measurement."""

    folder: str | None = option(None, optional_text, "folder in which the packages with photographs were installed")
    output: str = option("out/photographs", str, "folder of the table and the picture")
    weights: str | None = option(None, optional_text, "weights of the small model; the shipped ones by default")
    earlier: str | None = option(None, optional_text, "other weights to compare with")
    seeds: int = option(3, whole(1), "seeds of each object")
    tile: int = option(160, whole(32), "side of a view in the picture, in pixels")
    columns: int = option(2, whole(1), "objects beside each other in the picture")


def main() -> int:
    """Prints one line per object, and the means."""
    options = parse_options(Options, sys.argv[1:], "photographs")
    found = list(find_objects(options.folder))
    for one in found:
        if one.image is None:
            print(f"left out: {one.name}: {one.reason}")
    present = [one for one in found if one.image is not None]
    if not present:
        print("none of the photographs is here: docs/masks.md says how to get them")
        return 2
    models = {"now": fastsam3d.load_pipeline("mini", checkpoint_dir=options.weights)}
    if options.earlier:
        models = {"earlier": fastsam3d.load_pipeline("mini", checkpoint_dir=options.earlier), **models}
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    rows, tiles = [], []
    for one in present:
        results = {name: list(reconstructed(model, one, options.seeds)) for name, model in models.items()}
        row: dict[str, str | float] = {"object": one.name}
        row |= {name: round(statistics.mean(map(outline_iou, each)), 3) for name, each in results.items()}
        rows.append(row)
        print(row, flush=True)
        if one.photograph.licence.startswith(FREE) and one.photograph.licence_of == "photograph":
            tiles.append(drawn(one, [each[0] for each in results.values()], options.tile))
    for name in models:
        values = [float(row[name]) for row in rows]
        mean, median = statistics.mean(values), statistics.median(values)
        print(f"{name}: mean {mean:.3f}, median {median:.3f}, {len(values)} objects")
    with (output / "photographs.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if tiles:
        count = min(options.columns, len(tiles))
        columns = [np.concatenate(tiles[first::count]) for first in range(count)]
        height = max(len(column) for column in columns)
        filled = [np.pad(c, ((0, height - len(c)), (0, 0), (0, 0)), constant_values=255) for c in columns]
        Image.fromarray(np.concatenate(filled, axis=1)).save(output / "photographs.jpg", quality=88)
    return 0


def reconstructed(pipeline: Pipeline, one: Found, seeds: int) -> Iterator[Reconstruction]:
    """Reconstructs one object with each seed and the default preset."""
    with fastsam3d.accelerate(pipeline, "balanced"):
        for seed in range(seeds):
            yield pipeline.run(one.image, one.mask, seed=seed)


def outline_iou(result: Reconstruction) -> float:
    """Returns the intersection over union of the result's outline and the mask; 0 where there is no surface."""
    return 0.0 if result.projection is None else result.projection.agreement


def drawn(one: Found, results: list[Reconstruction], side: int) -> np.ndarray:
    """Returns a row of the picture: the photograph with the object marked, and views of each result."""
    assert one.image is not None and one.mask is not None
    parts = [np.asarray(highlight(one.image, one.mask, side))]
    for number, result in enumerate(results):
        views = VIEWS if number == len(results) - 1 else VIEWS[:1]
        for azimuth in views:
            mesh = result.mesh
            assert mesh is not None
            parts.append(np.asarray(render_mesh(mesh.vertices, mesh.faces, mesh.vertex_colors, azimuth, 20, side)))
    return np.concatenate(parts, axis=1)


if __name__ == "__main__":
    sys.exit(main())
