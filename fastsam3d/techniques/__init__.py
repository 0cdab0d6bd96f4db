"""Acceleration techniques, one a file: settings, state, policy, registration."""

from __future__ import annotations

from fastsam3d.techniques import (  # noqa: F401 - importing a technique registers it
    adaptive_caching,
    easycache,
    exact,
    fewer_steps,
    hicache,
    step_caching,
    taylorseer,
    token_aggregation,
    token_carving,
)
from fastsam3d.techniques.base import REGISTRY, Technique, TechniqueConfig

__all__ = ["REGISTRY", "Technique", "TechniqueConfig"]
