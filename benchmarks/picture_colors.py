"""Measures colour errors of the small model with and without the picture laid onto the surface.

    python benchmarks/picture_colors.py objects=32

The objects are held out, and their colours are known. A vertex of the result counts where the true surface is near. Its
true colour is that of the nearest part. It counts as seen if the picture's share is above one half. Errors are mean
absolute differences of colours of 0..1. For `hue` each colour is first divided by the sum of its three values.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

import fastsam3d
from fastsam3d.basics.options import option, parse_options, whole
from fastsam3d.evaluation.metrics.true_colors import NEAR, hue
from fastsam3d.meshes.geometry import vertex_normals
from fastsam3d.procedural import HELD_OUT_SEED, make_view
from fastsam3d.sam3d.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class Options:
    """Options of the measurement."""

    objects: int = option(32, whole(1), "held-out objects")
    first: int = option(500, whole(0), "number of the first held-out seed")
    size: int = option(384, whole(64), "side of the pictures in pixels")


def main() -> int:
    """Prints one line of JSON per object, and the means."""
    options = parse_options(Options, sys.argv[1:], "picture_colors")
    pipeline = fastsam3d.load_pipeline("mini")
    rows = []
    with fastsam3d.accelerate(pipeline, "balanced"):
        for number in range(options.objects):
            rows.append(measured(pipeline, HELD_OUT_SEED + options.first + number, options.size))
            print(json.dumps(rows[-1]), flush=True)
    names = [name for name in rows[0] if name.endswith(("seen", "unseen"))]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    print(json.dumps({name: statistics.mean(values) for name, values in known.items()}))
    return 0


def measured(pipeline: Pipeline, seed: int, size: int) -> Mapping[str, float | int | str | None]:
    """Measures the errors of one object."""
    view = make_view(seed, size=size)
    plain = pipeline.run(view.image, view.mask, pointmap=view.pointmap, picture_colors=False)
    painted = pipeline.run(view.image, view.mask, pointmap=view.pointmap)
    points = torch.from_numpy(plain.mesh.vertices)
    near = (view.object.sdf(points).abs() < NEAR).numpy()
    truth = view.object.color(points).numpy()
    normals = vertex_normals(plain.mesh.vertices, plain.mesh.faces)
    _, share = painted.projection.sample(plain.mesh.vertices, normals)
    row: dict[str, float | int | str | None] = {"seed": seed, "family": view.object.family}
    row["agreement"] = painted.projection.agreement
    for side, chosen in (("seen", near & (share > 0.5)), ("unseen", near & (share == 0))):
        for name, mesh in (("fitted", plain.mesh), ("painted", painted.mesh)):
            for measure, change in (("", np.asarray), ("hue_", hue)):
                error = np.abs(change(mesh.vertex_colors) - change(truth))[chosen]
                row[f"{name}_{measure}{side}"] = float(error.mean()) if chosen.any() else None
    return row


if __name__ == "__main__":
    sys.exit(main())
