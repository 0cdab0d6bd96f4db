"""One small folder of Chat-Scene, and the model that it gives, for all tests here."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="transformers is not installed here")

from tiny_chat_scene import write_chat_scene

from fastsam3d.mllm import load_mllm
from fastsam3d.mllm.benchmarks import read_attributes
from fastsam3d.mllm.chat_scene import read_features


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return write_chat_scene(tmp_path_factory.mktemp("chat_scene"))


@pytest.fixture(scope="session")
def model(files):
    return load_mllm("chat_scene", vicuna=files.vicuna, checkpoint=files.checkpoint)


@pytest.fixture(scope="session")
def features(files):
    return read_features(files.features_3d, files.features_2d)


@pytest.fixture(scope="session")
def segmented(files):
    return read_attributes(files.annotations / "scannet_mask3d_val_attributes.pt")
