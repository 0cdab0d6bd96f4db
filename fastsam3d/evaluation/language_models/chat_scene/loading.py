"""Loads the questions, the scenes and the model that the options of Chat-Scene name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.chat_scene.options import ChatSceneOptions
from fastsam3d.mllm.chat_scene import ChatScene, QuestionData, load_chat_scene, read_question_data

NEEDED = ("vicuna", "checkpoint", "annotations")


def require(options: Any, command: str, names: Sequence[str] = NEEDED) -> None:
    """Checks that options without a default were given.

    Args:
        options: an instance of a dataclass of options.
        command: for the message.
        names: of the options.

    Raises:
        UserError: one is missing.
    """
    for name in names:
        if getattr(options, name) in (None, ""):
            raise UserError(f"{command}: {name} is missing: give {name}=..., {command} --help says what it is")


def load_data(options: ChatSceneOptions, benchmarks: Sequence[str], split: str) -> QuestionData:
    """Reads questions and scenes.

    Args:
        options: name the files.
        benchmarks: names, or "all".
        split: `train` or `val`.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    assert options.annotations is not None
    return read_question_data(options.annotations, benchmarks, split, options.features, options.attributes)


def load_model(options: ChatSceneOptions, device: str | None = None) -> ChatScene:
    """Loads the language model with its projections.

    Args:
        device: used instead of the device of the options; None: that of the options.

    Raises:
        UserError: a file is missing, or Vicuna and the checkpoint do not belong together.
    """
    import torch

    assert options.vicuna is not None and options.checkpoint is not None
    dtype = getattr(torch, options.dtype)
    return load_chat_scene(options.vicuna, options.checkpoint, device=device or options.device, dtype=dtype)
