"""Search space of `tune`: its axes, from the most careful level to the boldest, and its starting points."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fastsam3d.evaluation.tuning.search import Axis, Point

STRIDE, THRESHOLD = "first stage: stride", "second stage: threshold"
LATENT_STRIDE = "second stage: stride, instead of a threshold"
STRUCTURE_STEPS, LATENT_STEPS = "first stage: plain steps", "second stage: plain steps"
MULTISTEP, LATENT_MULTISTEP = "first stage: multistep", "second stage: multistep"
STRUCTURE_SHARES = (1.0, 0.8, 0.68, 0.52, 0.44, 0.36, 0.28)
LATENT_SHARES = (1.0, 0.8, 0.64, 0.48, 0.4, 0.32, 0.24, 0.16)
"""Of the pipeline's own steps that plain sampling keeps; forecasts come on top."""

FIRST = {"guidance_first": 6, "growth": 0.3}
LATER = {"rescale": 4.0, "guidance_every": 3}
"""Settings of multistep sampling with which its steps are varied, by stage."""


def _levels(key: str, values: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    return tuple({key: value} for value in values)


def _orders(group: str) -> tuple[dict[str, Any], ...]:
    pairs = ((0, 0), (1, 0), (1, 1), (2, 1))
    return tuple({f"{group}.order": order, f"{group}.guidance_order": guidance} for order, guidance in pairs)


def _switched(group: str, *levels: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """A technique off, and on with each of the settings."""
    on = [{f"{group}.enabled": True} | {f"{group}.{name}": value for name, value in level.items()} for level in levels]
    return ({f"{group}.enabled": False}, *on)


def axes_of(structure_steps: int, latent_steps: int) -> list[Axis]:
    """The axes for a pipeline with these numbers of steps, without what is not installed."""
    thresholds = (0.1, 0.25, 0.5, 1.0, 1.5, 3.0)
    spectral = [{"threshold_low": low, "threshold_high": round(low + 0.15, 2)} for low in (0.15, 0.25, 0.35)]
    first, second = "first stage", "second stage"
    axes = [
        Axis(STRIDE, _switched("step_caching", *({"stride": stride} for stride in (2, 3, 4, 5, 6)))),
        Axis(THRESHOLD, _switched("adaptive_caching", *({"threshold": value} for value in thresholds))),
        Axis(LATENT_STRIDE, _switched("latent_step_caching", *({"stride": stride} for stride in (2, 3, 4, 6)))),
        Axis(MULTISTEP, _switched("multistep", *({**FIRST, "steps": share} for share in (0.88, 0.8, 0.68, 0.6, 0.44)))),
        Axis(LATENT_MULTISTEP, _switched("latent_multistep", *({**LATER, "steps": s} for s in (0.52, 0.4, 0.28, 0.2)))),
        Axis(f"{first}: order", _orders("step_caching")),
        Axis(f"{second}: order", _orders("adaptive_caching")),
        Axis(STRUCTURE_STEPS, _steps("sparse_structure_steps", structure_steps, STRUCTURE_SHARES)),
        Axis(LATENT_STEPS, _steps("structured_latent_steps", latent_steps, LATENT_SHARES)),
        Axis(f"{first}: warm-up", _levels("step_caching.warmup", (6, 5, 4, 3, 2))),
        Axis(f"{second}: longest forecast", _levels("adaptive_caching.max_consecutive_skips", (2, 3, 4, 6, 8))),
        Axis(f"{first}: exact layout", _levels("exact_layout.enabled", (False, True))),
        Axis("guidance reused", _levels("guidance_reuse.enabled", (False, True))),
        Axis(f"{first}: steps after the guidance edge", _levels("step_caching.edge_steps", (2, 1))),
        Axis(f"{second}: steps after the guidance edge", _levels("adaptive_caching.edge_steps", (2, 1))),
        Axis(f"{first}: share of forecast in layout", _levels("step_caching.momentum_beta", (0.5, 0.75, 1.0))),
        Axis(f"{first}: corrector", _levels("step_caching.corrector", (True, False))),
        Axis(f"{second}: carving", _switched("token_carving", *({"carved_fraction": c} for c in (0.2, 0.4, 0.6)))),
        Axis("voxels: aggregation", _switched("token_aggregation", *spectral)),
    ]
    return [axis for axis in axes if all(map(_is_known, axis.levels))]


def _steps(key: str, own: int, shares: Sequence[float]) -> tuple[dict[str, Any], ...]:
    counts = dict.fromkeys(max(1, round(share * own)) for share in shares)
    return tuple({f"fewer_steps.{key}": count} for count in counts)


def _is_known(level: Mapping[str, Any]) -> bool:
    from fastsam3d.diffusion.registry import REGISTRY

    for key in level:
        group, _, name = key.partition(".")
        if group not in REGISTRY or name not in {f.name for f in dataclasses.fields(REGISTRY[group].config)}:
            return False
    return True


def starts_of(axes: Sequence[Axis]) -> list[Point]:
    """Points to begin with, from the most careful to bold: forecasts, fewer steps, both, and multistep."""
    careful = {
        "first stage: order": 2,
        "second stage: order": 2,
        "first stage: warm-up": 3,
        "second stage: longest forecast": 2,
    }
    chosen: list[dict[str, int]] = [
        {},
        {STRIDE: 1, THRESHOLD: 2},
        {STRIDE: 2, THRESHOLD: 3},
        {STRIDE: 2, LATENT_STRIDE: 2},
        {STRUCTURE_STEPS: 4, LATENT_STEPS: 4},
        {STRIDE: 2, THRESHOLD: 3, STRUCTURE_STEPS: 2, LATENT_STEPS: 2},
        {MULTISTEP: 3, LATENT_MULTISTEP: 3},
    ]
    return [
        tuple(min({**careful, **levels}.get(axis.name, 0), len(axis.levels) - 1) for axis in axes) for levels in chosen
    ]


def complete(settings: Mapping[str, Any], structure_steps: int, latent_steps: int) -> dict[str, Any]:
    """Changed settings of a point with `fewer_steps` switched on where a stage takes fewer than the pipeline's own."""
    chosen = dict(settings)
    counts = chosen["fewer_steps.sparse_structure_steps"], chosen["fewer_steps.structured_latent_steps"]
    if counts == (structure_steps, latent_steps):
        return {key: value for key, value in chosen.items() if not key.startswith("fewer_steps.")}
    return {**chosen, "fewer_steps.enabled": True}
