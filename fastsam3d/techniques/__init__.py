"""Acceleration techniques, one a file: settings, state, policy, registration."""

from __future__ import annotations

from fastsam3d.techniques import (  # noqa: F401 - importing a technique registers it
    adaptive_caching,
    dmd,
    easycache,
    exact,
    exact_layout,
    fast3dcache,
    few_step_shortcut,
    fewer_steps,
    first_block_cache,
    guidance_reuse,
    hicache,
    magcache,
    random_drop,
    released_aggregation,
    released_latent_caching,
    released_step_caching,
    step_caching,
    taylorseer,
    token_aggregation,
    token_carving,
    uniform_merge,
)
from fastsam3d.techniques.base import REGISTRY, Technique, TechniqueConfig

__all__ = ["REGISTRY", "Technique", "TechniqueConfig"]
