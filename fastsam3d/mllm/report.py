"""What pruning did: tokens by layer, memory of the cache, operations, seconds of scoring."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from fastsam3d.acceleration.run_report import TabularReport, Total


class Clock:
    """Adds up wall-clock seconds of `with` blocks. It waits for the device at their beginning and end."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = 0.0
        self._start = 0.0

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def __enter__(self) -> Clock:
        self._start = self._now()
        return self

    def __exit__(self, *error: Any) -> None:
        self.seconds += self._now() - self._start


@dataclass
class Report(TabularReport):
    """What one `Acceleration` of a language model has done so far.

    Only memory and operations count every beam; all other numbers count a sample once.

    Attributes:
        preset: its name.
        techniques: names of the techniques that are switched on.
        calls: batches of prompts that were read.
        samples: prompts in these batches.
        samples_without_span: prompts for which no visual span was given, so that nothing could leave.
        prompt_tokens: tokens of the samples, without padding.
        visual_tokens: visual tokens among them.
        tokens_by_layer: tokens of the samples that each layer saw.
        visual_by_layer: visual tokens of the samples that each layer saw.
        groups, groups_kept: visual groups of the samples without padding objects, and how many of them stayed to the
            end.
        cache_bytes_full: bytes of keys and values of the prompts if no token had left, by formula.
        cache_bytes_counted: bytes of keys and values of the tokens that stayed, by formula.
        cache_bytes_held: bytes of the caches after the prompts were read, padding and empty places included.
        flops_full, flops: operations to read the prompts if no token had left, and with pruning, by formula. Those of
            the scorer, such as a predictor or the full run of the oracle, do not count.
        prefill_seconds: wall clock of reading the prompts, scoring included.
        scoring_seconds: wall clock of scoring and choosing.
        masked_by_layer: for the technique `released` only: visual tokens of the samples that each layer masked, but
            still computed, while the prompts were read.
        remasked_steps: for `released` only: steps of generation in which the masked tokens were chosen again.
        decode_steps, decode_seconds: steps of generation in the decoder, and their wall clock.
    """

    preset: str
    techniques: tuple[str, ...] = ()
    calls: int = 0
    samples: int = 0
    samples_without_span: int = 0
    prompt_tokens: int = 0
    visual_tokens: int = 0
    tokens_by_layer: list[int] = field(default_factory=list)
    visual_by_layer: list[int] = field(default_factory=list)
    groups: int = 0
    groups_kept: int = 0
    cache_bytes_full: int = 0
    cache_bytes_counted: int = 0
    cache_bytes_held: int = 0
    flops_full: float = 0.0
    flops: float = 0.0
    prefill_seconds: float = 0.0
    scoring_seconds: float = 0.0
    masked_by_layer: list[int] = field(default_factory=list)
    remasked_steps: int = 0
    decode_steps: int = 0
    decode_seconds: float = 0.0

    @property
    def total(self) -> Total:
        """Sums: seconds of reading the prompts and of generation, and the operations of reading the prompts."""
        return Total(self.prefill_seconds + self.decode_seconds, self.flops_full, self.flops)

    def rows(self) -> list[dict[str, Any]]:
        """The table of layers: tokens that each layer saw, and visual tokens among them."""
        counts = zip(self.tokens_by_layer, self.visual_by_layer, strict=True)
        return [{"layer": layer, "tokens": all_, "visual_tokens": seen} for layer, (all_, seen) in enumerate(counts)]

    @property
    def pruned_share(self) -> float:
        """Share of the visual tokens that were left out, averaged over the layers, 0..1."""
        possible = self.visual_tokens * len(self.visual_by_layer)
        return 1.0 - sum(self.visual_by_layer) / possible if possible else 0.0

    @property
    def masked_share(self) -> float:
        """Share of the visual tokens that were masked but still computed, averaged over the layers, 0..1."""
        possible = self.visual_tokens * len(self.masked_by_layer)
        return sum(self.masked_by_layer) / possible if possible else 0.0

    def add(self, other: Report) -> None:
        """Adds the counts of another report, which has the same settings and a model with as many layers."""
        for name in (f.name for f in dataclasses.fields(self) if f.name not in ("preset", "techniques")):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, list):
                theirs = [a + b for a, b in zip(mine, theirs, strict=True)] if mine and theirs else mine or list(theirs)
                setattr(self, name, theirs)
            else:
                setattr(self, name, mine + theirs)

    def to_dict(self) -> dict[str, Any]:
        """All attributes and both shares as plain numbers, strings, lists and dicts, ready for JSON."""
        derived = {"pruned_share": self.pruned_share, "masked_share": self.masked_share}
        return dataclasses.asdict(self) | {"techniques": list(self.techniques)} | derived

    def __str__(self) -> str:
        saved = self.flops_full / self.flops if self.flops else 1.0
        lines = [
            f"{self.preset}: {', '.join(self.techniques) or 'no technique'}",
            f"samples: {self.samples} in {self.calls} calls, {self.prompt_tokens} tokens, {self.visual_tokens} visual",
            f"visual tokens left out: {100 * self.pruned_share:.1f} %, averaged over the layers; "
            f"{self.groups_kept} of {self.groups} groups stay to the end",
            f"tokens by layer: {' '.join(map(str, self.tokens_by_layer))}",
            f"cache after the prompts: {self.cache_bytes_held / 2**20:.2f} MiB held, "
            f"{self.cache_bytes_counted / 2**20:.2f} counted, {self.cache_bytes_full / 2**20:.2f} without pruning",
            f"operations of the prompts: {self.flops / 1e9:.2f} GFLOP, {saved:.2f} times fewer than without pruning",
            f"seconds: {self.prefill_seconds:.3f} reading prompts, {self.scoring_seconds:.3f} of them scoring; "
            f"{self.decode_seconds:.3f} in {self.decode_steps} steps of generation",
        ]
        if self.masked_by_layer:
            lines.append(
                f"visual tokens masked and computed all the same, so that nothing is saved: "
                f"{100 * self.masked_share:.1f} %, averaged over the layers; chosen anew in {self.remasked_steps} steps"
            )
        if self.samples_without_span:
            lines.append(
                f"{self.samples_without_span} samples came without visual spans and were read in full: give them by "
                "acceleration.visual(spans) or visual=spans"
            )
        return "\n".join(lines)
