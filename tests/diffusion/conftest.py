"""Fixtures of the tiny native pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_pipeline import tiny_pipeline


@pytest.fixture
def make_pipeline():
    return tiny_pipeline


@pytest.fixture
def pipeline():
    return tiny_pipeline()


@pytest.fixture
def picture():
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    mask = np.zeros((48, 48), bool)
    mask[10:36, 14:40] = True
    return image, mask
