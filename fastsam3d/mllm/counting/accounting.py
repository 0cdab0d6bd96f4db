"""Adds the counts of prompts that were read to a report."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastsam3d.mllm.counting.costs import Sizes
from fastsam3d.mllm.dropping.prefill import Prefill
from fastsam3d.mllm.dropping.remasking import Remasking
from fastsam3d.mllm.report import Report
from fastsam3d.mllm.spans import Layout


def add_prefill(
    report: Report,
    sizes: Sizes,
    live: Tensor,
    copies: int,
    layout: Layout | None,
    run: Prefill | Remasking | None,
    cache: Any,
) -> None:
    """Adds one reading of a batch of prompts.

    Args:
        report: to add to.
        sizes: of the model.
        live: (B, S) bool: not padding.
        copies: rows of each sample.
        layout: of the batch before any cut; None where no spans were given.
        run: the pruned run; None where nothing could leave.
        cache: the cache after the run; None without one.
    """
    full = live.sum(1)
    whole_tokens = int(full[::copies].sum())
    by_layer = _by_layer(sizes.layers, full, {cut.layer: cut.valid.sum(1) for cut in run.kept} if run else {})
    columns = by_layer[:, ::copies].sum(1).tolist()
    report.calls += 1
    report.samples += len(live) // copies
    report.prompt_tokens += whole_tokens
    report.tokens_by_layer = _added(report.tokens_by_layer, columns)
    visual = 0
    if layout is None:
        report.samples_without_span += len(live) // copies
    else:
        visual = int((layout.visual & live)[::copies].sum())
        report.groups += int(layout.present[::copies].sum())
        kept = run.choices[-1].kept if run and run.choices else layout.present[::copies]
        report.groups_kept += int(kept.sum())
    report.visual_tokens += visual
    left_out = [whole_tokens - count for count in columns]
    report.visual_by_layer = _added(report.visual_by_layer, [visual - count for count in left_out])
    for row, tokens in enumerate(by_layer.T.tolist()):
        whole = [int(full[row])] * sizes.layers
        report.flops_full += sizes.prefill_flops(whole)
        report.flops += sizes.prefill_flops(tokens)
        if cache is not None:
            report.cache_bytes_full += sizes.cache_bytes(whole)
            report.cache_bytes_counted += sizes.cache_bytes(tokens)
    report.cache_bytes_held += bytes_held(cache)
    if run is not None:
        report.scoring_seconds += run.clock.seconds
    if isinstance(run, Remasking):
        report.masked_by_layer = _added(report.masked_by_layer, run.masked_by_layer)


def bytes_held(cache: Any) -> int:
    """Bytes of the keys and values that a cache holds; 0 without one."""
    tensors = [getattr(layer, name, None) for layer in getattr(cache, "layers", ()) for name in ("keys", "values")]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def _by_layer(layers: int, full: Tensor, changes: dict[int, Tensor]) -> Tensor:
    """(layers, B): counts that change at some layers and stay until the next change."""
    rows, counts = [], full
    for index in range(layers):
        counts = changes.get(index, counts)
        rows.append(counts)
    return torch.stack(rows)


def _added(before: list[int], more: list[int]) -> list[int]:
    return [a + b for a, b in zip(before, more, strict=True)] if before else more
