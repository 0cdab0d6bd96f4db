"""The bundled example inputs, made from held-out seeds.

    python -m fastsam3d examples --output examples

A folder per example: `image.png` (RGB), `0.png`, `1.png`, ... (the picture cut out along each object's mask, RGBA;
alpha is the mask) and `pointmap.npy` (float16 `[H, W, 3]`, camera frame, NaN where nothing is).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.procedural.scene_render import render_scene, trace_scene
from fastsam3d.procedural.scenes import Scene, make_scene

EXAMPLES: dict[str, tuple[int, tuple[str, ...]]] = {
    "chair": (HELD_OUT_SEED + 107, ("chair",)),
    "car": (HELD_OUT_SEED + 106, ("car",)),
    "toys": (HELD_OUT_SEED + 104, ("robot", "mug", "cactus", "mushroom")),
}
"""Name of each example: its seed and its families."""


def example_scene(name: str) -> Scene:
    """The scene of a bundled example, with ground truth."""
    seed, families = EXAMPLES[name]
    return make_scene(seed, len(families), families)


def write_example(name: str, directory: Path | str, size: int = 512, pointmap_size: int = 256) -> Path:
    """Writes one example below `directory` and returns its folder."""
    folder = Path(directory) / name
    folder.mkdir(parents=True, exist_ok=True)
    scene = example_scene(name)
    picture = render_scene(scene, size, supersample=3)
    Image.fromarray(picture.image).save(folder / "image.png", optimize=True)
    for index, mask in enumerate(picture.masks):
        cut_out = np.dstack([picture.image * mask[..., None], mask * np.uint8(255)])
        Image.fromarray(cut_out).save(folder / f"{index}.png", optimize=True)
    np.save(folder / "pointmap.npy", trace_scene(scene, pointmap_size)[1].astype(np.float16))
    return folder
