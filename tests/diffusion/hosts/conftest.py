from __future__ import annotations

import numpy as np
import pytest
import torch
from host_stand_ins.sam3d_objects import InferencePipelinePointMap
from host_stand_ins.trellis import TrellisImageTo3DPipeline
from host_stand_ins.trellis2 import Trellis2ImageTo3DPipeline
from PIL import Image


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


@pytest.fixture
def make_sam3d():
    return lambda **options: seeded(lambda: InferencePipelinePointMap(**options))


@pytest.fixture
def sam3d(make_sam3d):
    return make_sam3d()


@pytest.fixture
def make_trellis():
    return lambda: seeded(TrellisImageTo3DPipeline)


@pytest.fixture
def trellis(make_trellis):
    return make_trellis()


@pytest.fixture
def trellis2():
    return seeded(Trellis2ImageTo3DPipeline)


@pytest.fixture
def picture():
    image = np.random.default_rng(0).integers(1, 255, (32, 32, 3), dtype=np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:26] = 255
    return image, mask


@pytest.fixture
def cut_out(picture):
    image, mask = picture
    return Image.fromarray(image * (mask[..., None] > 0))
