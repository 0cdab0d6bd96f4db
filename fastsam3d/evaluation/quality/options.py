"""Options of `quality` and `scene-quality`, in a module of their own: help and mistyped keys need no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.options import boolean, option, optional, optional_text, whole, words
from fastsam3d.evaluation.metrics.surfaces import SURFACE_POINTS
from fastsam3d.procedural import HELD_OUT_SEED


@dataclass(frozen=True)
class QualityOptions:
    """Options of the quality measurement."""

    objects: int = option(128, whole(1), "number of held-out objects")
    first_seed: int = option(HELD_OUT_SEED, whole(0), "seed of the first; those from 1,000,000,000 on are held out")
    output: str = option("quality", str, "folder for quality.json, quality.md and gallery.png")
    device: str = option("cpu", str, "cpu or cuda")
    model: str = option("mini", str, "model to load")
    checkpoint_dir: str | None = option(None, optional_text, "folder with weights; null: those of the package")
    random_weights: bool = option(False, boolean, "untrained weights, to see what chance gives")
    noise_seed: int = option(0, whole(0), "added to each object's seed for its noise")
    other_seed: bool = option(True, boolean, "run every image a second time with other noise")
    gallery: int = option(12, whole(0), "objects in the picture, of different families as far as they go")
    points: int = option(SURFACE_POINTS, whole(100), "surface points of the metrics")


def _counts(text: str) -> tuple[int, ...]:
    return tuple(whole(2)(part) for part in words(text))


@dataclass(frozen=True)
class SceneQualityOptions:
    """Options of the command."""

    preset: str = option("balanced", str, "acceleration that is judged")
    objects: tuple[int, ...] = option((6, 27), _counts, "objects of a scene; a list for several sizes")
    scenes: int = option(2, whole(1), "scenes of each size")
    seed: int = option(7, whole(0), "chooses the scenes and their noise")
    batch: int | None = option(None, optional(whole(1)), "objects sampled together; null: the default")
    pixels: int = option(0, whole(0), "side of the pictures; 0: 28 a object, at least 384")
    output: str = option("out/scenes", str, "folder for scene_quality.json and scene_quality.md")
    device: str = option("cpu", str, "cpu or cuda")
    model: str = option("mini", str, "model to load")
    checkpoint_dir: str | None = option(None, optional_text, "folder with weights; null: those of the package")
    random_weights: bool = option(False, boolean, "untrained weights: speed only, quality means nothing")
