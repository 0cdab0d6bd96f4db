"""The curves of the MagCache preset are those of the weights that are shipped."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from PIL import Image

import fastsam3d
from fastsam3d.acceleration.presets import load_preset
from fastsam3d.basics.config_files import config_directory
from fastsam3d.evaluation.tuning.magcache_curves import magcache_ratios

EXAMPLES = config_directory().parent / "examples"


@pytest.mark.slow
def test_magcache_curves_belong_to_the_shipped_weights():
    pipeline = fastsam3d.load_pipeline("mini")

    def run():
        for name in ("car", "chair"):
            image = np.asarray(Image.open(EXAMPLES / name / "image.png").convert("RGB"))
            mask = np.asarray(Image.open(EXAMPLES / name / "0.png"))
            points = np.load(EXAMPLES / name / "pointmap.npy")
            pipeline.run(image, (mask[..., -1] if mask.ndim == 3 else mask) > 0, seed=0, pointmap=points)

    shipped = load_preset("magcache")["magcache"]
    for name, curve in magcache_ratios(pipeline, run).items():
        known = getattr(shipped, name)
        assert len(known) == len(curve)
        # Two objects against the mean of six: a few thousandths apart; other weights are hundredths.
        assert statistics.mean(abs(a - b) for a, b in zip(known, curve, strict=True)) < 0.01, (
            f"{name} is stale: measure it with fastsam3d.evaluation.tuning.magcache_curves and write it to "
            "acceleration/magcache.yaml"
        )
