"""Loads published 3D language models by their names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError

KINDS = {
    "chat_scene": ("fastsam3d.mllm.chat_scene.loading", "load_chat_scene"),
    "small": ("fastsam3d.mllm.mini.loading", "load_small_model"),
}
"""Module and function that load each kind."""


def load_mllm(kind: str, **options: Any) -> Any:
    """Loads a language model that reads 3D scenes, ready to answer and to be accelerated.

    Args:
        kind: `chat_scene`, or `small` for the model that ships with the package.
        options: keyword arguments of the function that loads this kind. For Chat-Scene, see `load_chat_scene` in
            `fastsam3d.mllm.chat_scene`: `vicuna=` is the folder of Vicuna, and `checkpoint=` is the file of Chat-Scene.
            For the small model, see `fastsam3d.mllm.mini.loading.load_small_model`.

    Raises:
        UserError: there is no such kind, or its files are missing, damaged or do not belong together.

    Example:
        >>> from fastsam3d.mllm import load_mllm                                                # doctest: +SKIP
        >>> model = load_mllm("chat_scene", vicuna="vicuna-7b-v1.5", checkpoint="ckpt.pth")     # doctest: +SKIP
        >>> model.answer(scene, "What color is the chair?")                                     # doctest: +SKIP
    """
    if kind not in KINDS:
        raise UserError(f"there is no kind of 3D language model called {kind!r}. {suggestion(str(kind), KINDS)}")
    module, name = KINDS[kind]
    return getattr(import_module(module), name)(**options)
