"""What acceleration did: seconds, network evaluations computed and forecast, tokens kept, peak memory."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import Any


@dataclass
class StageReport:
    """Counts of one sampled stage, added up over its runs. An evaluation is one pass of the network.

    Attributes:
        runs: sampling runs.
        conditional_computed, unconditional_computed: evaluations that ran.
        conditional_forecast, unconditional_forecast: evaluations that a forecast stood in for.
        tokens_computed, tokens_possible: transformer tokens of the evaluations that ran, without and with those
            that were left out; 0 for a stage without such a count.
        layout_evaluations: passes of the layout tokens alone, which are not among the evaluations.
    """

    runs: int = 0
    conditional_computed: int = 0
    unconditional_computed: int = 0
    conditional_forecast: int = 0
    unconditional_forecast: int = 0
    tokens_computed: int = 0
    tokens_possible: int = 0
    layout_evaluations: int = 0

    @property
    def evaluations(self) -> int:
        """Network evaluations that ran, both branches (NFE)."""
        return self.conditional_computed + self.unconditional_computed

    @property
    def forecast(self) -> int:
        """Network evaluations that a forecast stood in for, both branches."""
        return self.conditional_forecast + self.unconditional_forecast

    @property
    def tokens_kept(self) -> float:
        """Share of the transformer tokens that was computed, 0..1."""
        return self.tokens_computed / self.tokens_possible if self.tokens_possible else 1.0


@dataclass
class Report:
    """What one `Acceleration` has done so far.

    Attributes:
        preset: its name.
        techniques: names of those switched on.
        stages: counts by sampled stage.
        seconds: wall-clock seconds by pipeline stage, the device waited for, added up over objects.
        objects: finished objects.
        voxels_before, voxels_after: voxels of the latent stage before and after aggregation, added up.
        peak_memory_bytes: of the device, or of the process on a CPU; 0 where unknown.
    """

    preset: str
    techniques: tuple[str, ...] = ()
    stages: dict[str, StageReport] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    objects: int = 0
    voxels_before: int = 0
    voxels_after: int = 0
    peak_memory_bytes: int = 0

    def add_object(self, seconds: dict[str, float]) -> None:
        """Adds one finished object's seconds by stage."""
        self.objects += 1
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    @property
    def voxels_kept(self) -> float:
        """Share of the voxels that aggregation left, 0..1."""
        return self.voxels_after / self.voxels_before if self.voxels_before else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, ready for JSON, with the derived shares."""
        result = dataclasses.asdict(self)
        result["techniques"] = list(self.techniques)
        for name, stage in self.stages.items():
            result["stages"][name] |= {
                "evaluations": stage.evaluations,
                "forecast": stage.forecast,
                "tokens_kept": stage.tokens_kept,
            }
        result["voxels_kept"] = self.voxels_kept
        return result

    def __str__(self) -> str:
        names = [*self.seconds, *(name for name in self.stages if name not in self.seconds)]
        rows = [("stage", "seconds", "computed", "forecast", "tokens kept")]
        for name in names:
            stage = self.stages.get(name)
            seconds = f"{self.seconds[name]:.3f}" if name in self.seconds else "-"
            if stage is None:
                rows.append((name, seconds, "", "", ""))
            else:
                kept = f"{stage.tokens_kept:.0%}" if stage.tokens_possible else "-"
                rows.append((name, seconds, str(stage.evaluations), str(stage.forecast), kept))
        totals = self.stages.values()
        evaluations, forecast = sum(s.evaluations for s in totals), sum(s.forecast for s in totals)
        rows.append(("total", f"{sum(self.seconds.values()):.3f}", str(evaluations), str(forecast), ""))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = []
        for row in rows:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  ".join(cells).rstrip())
        lines.insert(1, "-" * max(len(line) for line in lines))
        head = f"preset {self.preset} ({', '.join(self.techniques) or 'nothing'}), {self.objects} object(s)"
        tail = []
        if self.voxels_before:
            tail.append(f"voxels {self.voxels_before} -> {self.voxels_after} ({self.voxels_kept:.0%})")
        if self.peak_memory_bytes:
            tail.append(f"peak memory {self.peak_memory_bytes / 2**20:.0f} MiB")
        return "\n".join([head, *lines, *([", ".join(tail)] if tail else [])])


def peak_memory(device: Any) -> int:
    """Peak memory in bytes: allocated on a CUDA device, else resident in this process; 0 where unknown."""
    if getattr(device, "type", str(device)) == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024  # kibibytes but for macOS
