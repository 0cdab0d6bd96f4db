"""Fixtures of one small folder of Chat-Scene; a test module or a conftest imports those that it needs."""

from __future__ import annotations

import pytest
from tiny_chat_scene import write_chat_scene

from fastsam3d.mllm import load_mllm
from fastsam3d.mllm.chat_scene import read_question_data


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of the folder's files."""
    return write_chat_scene(tmp_path_factory.mktemp("chat_scene"))


@pytest.fixture(scope="module")
def model(files):
    """The model of these files."""
    return load_mllm("chat_scene", vicuna=files.vicuna, checkpoint=files.checkpoint)


@pytest.fixture(scope="module")
def data(files):
    """All questions of the validation split."""
    return read_question_data(files.annotations, ("all",), "val", (files.features_3d, files.features_2d))
