"""One small folder of Chat-Scene, and the model that it gives, for all tests here."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="transformers is not installed here")

import chat_scene_fixtures

from fastsam3d.mllm.benchmarks import read_attributes
from fastsam3d.mllm.chat_scene import read_features

files, model = chat_scene_fixtures.files, chat_scene_fixtures.model


@pytest.fixture(scope="module")
def features(files):
    return read_features(files.features_3d, files.features_2d)


@pytest.fixture(scope="module")
def segmented(files):
    return read_attributes(files.annotations / "scannet_mask3d_val_attributes.pt")
