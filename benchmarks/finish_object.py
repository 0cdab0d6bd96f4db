"""Finishes an object whose colours are known, beside the straightforward way, in one process and in turns.

    PYTHONPATH=. python benchmarks/finish_object.py --output finish.json

Both ways get the same surface and Gaussians and make the same number of faces and texels; cleaning, simplification and
unwrapping are the same, too. The straightforward way (`finish_rival`) renders views of the Gaussians and optimises the
texture. The official pipeline does this with 100 views of 1024 pixels and 2500 steps on a GPU; here it gets fewer, and
what is left out only makes it faster. Seconds are of the wall clock and of the processor: on a machine that does other
work, those of the processor are the ones to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from finish_rival import bake_by_optimising
from finish_truth import Truth, is_flat, make_truth, unlit_views

from fastsam3d.evaluation.metrics.visual import compare_renders
from fastsam3d.meshes.finishing.baking import make_atlas
from fastsam3d.meshes.finishing.finishing import finish
from fastsam3d.meshes.formats.glb import encode_glb
from fastsam3d.meshes.mesh import Mesh, TexturedMesh


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """(what the work returns, seconds of the wall clock and of the processor)."""
    wall, cpu = time.monotonic(), time.process_time()
    result = work()
    return result, {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu}


def flat_error(mesh: TexturedMesh, truth: Truth) -> float:
    """Largest difference from the true colour, in steps of 255, of texels where the colour is the same all around."""
    from fastsam3d.meshes.rasterizer import rasterize

    size = mesh.texture.shape[0]
    hit = rasterize(mesh.uv * size, np.ones(len(mesh.uv)), mesh.faces, size, size)
    points = hit.interpolate(mesh.vertices, mesh.faces)
    flat = is_flat(points)
    colors = mesh.texture.reshape(-1, 3)[hit.pixels[flat]].astype(np.float64)
    return float(np.abs(colors - 255 * truth.color(points[flat])).max()) if flat.any() else float("nan")


def scores(mesh: Mesh, truth: Truth, views: Any) -> dict[str, float]:
    """How near pictures of the mesh come to the truth, and the size of its file."""
    found = compare_renders(unlit_views(mesh), views)
    if isinstance(mesh, TexturedMesh):
        found["flat_error"] = flat_error(mesh, truth)
    return found | {"faces": len(mesh.faces), "bytes": len(encode_glb(mesh))}


def run(options: argparse.Namespace, told: Callable[[str], None]) -> dict[str, Any]:
    """Measures all ways; returns plain values."""
    truth = make_truth(faces=options.mesh_faces, gaussians=options.gaussians)
    told(f"truth: {len(truth.mesh.faces)} faces, {len(truth.splats)} Gaussians")
    views = unlit_views(truth.mesh, truth.color)
    ways: dict[str, list[dict[str, float]]] = {"finish": [], "straightforward": []}
    steps: list[dict[str, float]] = []
    result: dict[str, Any] = {}

    def ours(texture: int | None = options.texture) -> Any:
        return finish(truth.mesh, gaussians=truth.splats, faces=options.faces, texture=texture, watertight=True)

    def theirs() -> TexturedMesh:
        shape = ours(None).mesh
        atlas = make_atlas(shape, options.texture)
        return bake_by_optimising(atlas, truth.splats, options.views, options.size, options.steps, told)

    for _ in range(options.repeats):
        finished, seconds = timed(ours)
        ways["finish"].append(seconds)
        steps.append(finished.seconds)
        told(f"finish: {seconds}")
        result["finish"] = scores(finished.mesh, truth, views) | {"facts": finished.facts}
        if options.steps:
            baked, seconds = timed(theirs)
            ways["straightforward"].append(seconds)
            told(f"straightforward: {seconds}")
            result["straightforward"] = scores(baked, truth, views)
    result["vertex colours"] = scores(ours(None).mesh, truth, views)
    result["full surface"] = scores(truth.mesh, truth, views)
    surface = finish(truth.mesh, faces=options.faces, texture=options.texture, watertight=True)
    result["texture from the surface"] = scores(surface.mesh, truth, views) | {"seconds": surface.seconds}
    result["seconds"] = ways
    result["seconds by step"] = steps
    if options.steps:
        result["ratio"] = {
            clock: float(np.median([b[clock] / a[clock] for a, b in zip(*ways.values(), strict=True)]))
            for clock in ("wall", "cpu")
        }
    result["options"] = vars(options) | {"output": str(options.output)}
    return result


def main() -> None:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("finish.json"))
    for name, value in (("mesh-faces", 300_000), ("gaussians", 300_000), ("faces", 20_000), ("texture", 1024)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--views", type=int, default=30, help="of the straightforward way")
    parser.add_argument("--size", type=int, default=512, help="side of its views in pixels")
    parser.add_argument("--steps", type=int, default=300, help="of its optimiser; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()

    def told(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    options.output.write_text(json.dumps(run(options, told), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
