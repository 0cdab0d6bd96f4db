"""Procedural objects, views and scenes: data for training and evaluation without any download."""

from __future__ import annotations

from importlib import import_module
from typing import Any

HELD_OUT_SEED = 1_000_000_000
"""Seeds from here on are for evaluation; training uses smaller ones."""

_PUBLIC = {
    "FAMILIES": "objects",
    "ProceduralObject": "objects",
    "make_object": "objects",
    "View": "samples",
    "make_view": "samples",
    "Scene": "scenes",
    "make_scene": "scenes",
    "render_scene": "scene_render",
}
__all__ = ["HELD_OUT_SEED", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
