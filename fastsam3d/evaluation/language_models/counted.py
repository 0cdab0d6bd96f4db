"""Counts the operations and the memory that the settings of a row need at the size of Vicuna-7B, by formula."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.evaluation.measuring.methods import OFF, Method
from fastsam3d.mllm.counting.costs import Sizes
from fastsam3d.mllm.dropping.plan import plan_of

VICUNA_7B = Sizes(32, 4096, 32, 32, 128, 11008, 32100, 2)
TEXT_TOKENS, GROUP = 90, 3  # of a prompt of Chat-Scene; tokens of an object
OBJECTS = (100, 300)


def count_rows(methods: Sequence[Method], kept_shares: dict[str, float]) -> list[dict[str, Any]]:
    """Counts operations and memory for every row and number of objects.

    Args:
        methods: the rows.
        kept_shares: by name of the row, the mean share of the objects that stayed, 0..1. Adaptive budgets need it.

    Returns:
        Records with "method" and "objects"; "tflop", 1e12 operations to read a prompt without the predictor; "ratio",
        the operations of "off" divided by those of the row; and "cache_mib", MiB of keys and values.
    """
    records = []
    for objects in OBJECTS:
        full = [TEXT_TOKENS + GROUP * objects] * VICUNA_7B.layers
        whole = VICUNA_7B.prefill_flops(full)
        for method in methods:
            tokens = full if method.preset == OFF else _tokens(method, objects, kept_shares.get(method.name))
            flops = VICUNA_7B.prefill_flops(tokens)
            records.append(
                {
                    "method": method.name,
                    "objects": objects,
                    "tflop": flops / 1e12,
                    "ratio": whole / flops,
                    "cache_mib": VICUNA_7B.cache_bytes(tokens) / 2**20,
                }
            )
    return records


def _tokens(method: Method, objects: int, kept: float | None) -> list[int]:
    """Tokens that each layer sees."""
    config = load_preset(method.preset, method.overrides, family="mllm")
    plan = plan_of(config, VICUNA_7B.layers)
    if plan is None or plan.mask or plan.scorer.every_step:  # masked tokens are computed all the same
        return [TEXT_TOKENS + GROUP * objects] * VICUNA_7B.layers
    tokens, there = [], float(objects)
    for layer in range(VICUNA_7B.layers):
        if layer in plan.cuts:
            budget = plan.budget
            adaptive = (kept or 1.0) * objects
            stays = {"share": budget.share * there, "fixed": float(budget.keep)}.get(budget.rule, adaptive)
            there = min(max(stays, 1.0), there)
        tokens.append(TEXT_TOKENS + round(GROUP * there))
    return tokens
