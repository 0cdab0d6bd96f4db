"""The registry of techniques for language models; reading it imports the techniques of this package."""

from __future__ import annotations

from importlib import import_module

from fastsam3d.acceleration.registry import Registry, Technique
from fastsam3d.mllm.capabilities import CAPABILITIES


def _discover() -> None:
    import_module("fastsam3d.mllm.techniques").discover()


REGISTRY = Registry(CAPABILITIES, _discover)
"""Techniques by config group."""


def register(technique: Technique) -> Technique:
    """Adds a technique under its config group.

    Raises:
        ValueError: another technique has this name, or this one needs a capability that does not exist.
    """
    return REGISTRY.register(technique)
