"""The registry of diffusion techniques; reading it imports the techniques and exact savings of this package."""

from __future__ import annotations

from importlib import import_module

from fastsam3d.acceleration.registry import Registry, Technique
from fastsam3d.diffusion.capabilities import CAPABILITIES


def _discover() -> None:
    for package in ("techniques", "exact"):
        import_module(f"fastsam3d.diffusion.{package}").discover()


REGISTRY = Registry(CAPABILITIES, _discover)
"""Techniques by config group."""


def register(technique: Technique) -> Technique:
    """Adds a diffusion technique under its config group.

    Raises:
        ValueError: another technique has the name, or it needs something that is no capability.
    """
    return REGISTRY.register(technique)
