"""Reconstructs one object with acceleration and keeps the report."""

from pathlib import Path

import numpy as np
from PIL import Image

import fastsam3d


def reconstruct(picture: Path, mask: Path, output: Path) -> float:
    """Writes the object; returns the seconds that it took."""
    image = np.asarray(Image.open(picture).convert("RGB"))
    inside = np.asarray(Image.open(mask))[..., -1] > 127
    pipeline = fastsam3d.load_pipeline("mini", precision="float32")
    with fastsam3d.accelerate(pipeline, "balanced") as acceleration:
        result = pipeline.run(image, inside, seed=1)
        report = acceleration.report()
    if result.mesh is not None:
        print(f"{len(result.mesh.faces)} faces; {report.total.fewer_operations:.1f} times fewer operations")
    fastsam3d.export(result, output)
    report.to_csv(output.with_suffix(".csv"))
    return report.total.seconds


if __name__ == "__main__":
    print(fastsam3d.presets())
    try:
        print(reconstruct(Path("examples/chair/image.png"), Path("examples/chair/0.png"), Path("object.glb")))
    except fastsam3d.UserError as error:
        print(error)
