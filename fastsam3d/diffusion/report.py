"""Reports what acceleration did: seconds, network evaluations computed and forecast, tokens kept, peak memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastsam3d.acceleration.run_report import TabularReport, Total, text_table
from fastsam3d.diffusion.passes import Passes


@dataclass
class StageReport:
    """Counts of one sampled stage, added up over its runs. An evaluation is one pass of the network.

    Attributes:
        runs: sampling runs.
        conditional_computed, unconditional_computed: evaluations that ran.
        conditional_forecast, unconditional_forecast: evaluations that a forecast stood in for.
        tokens_computed: transformer tokens that ran, in all passes of the network; of a pass whose blocks ran in part
            the same share of its tokens, and those of the layout alone too; 0 for a stage without such a count.
        tokens_possible: tokens of the same passes if nothing of them had been left out.
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
        """Share of the transformer tokens that ran in the passes that were made, 0..1."""
        return self.tokens_computed / self.tokens_possible if self.tokens_possible else 1.0


@dataclass
class NetworkFlops:
    """Floating-point operations of one stage's network, added up over objects.

    Attributes:
        plain: what the untouched pipeline would have computed.
        exact: the same with the exact savings that were on.
        computed: what was computed.
    """

    plain: float = 0.0
    exact: float = 0.0
    computed: float = 0.0

    @property
    def saved_exact(self) -> float:
        """Operations that were saved at no change of the result."""
        return self.plain - self.exact

    @property
    def saved_approximate(self) -> float:
        """Operations that were saved by forecasts, by leaving tokens out, by fewer steps or by merged voxels."""
        return self.exact - self.computed


@dataclass(frozen=True)
class DiffusionTotal(Total):
    """Sums over all stages and objects.

    Attributes:
        evaluations: network evaluations that ran, both branches (NFE).
        forecast: network evaluations that a forecast stood in for, both branches.
    """

    evaluations: int
    forecast: int


@dataclass
class Report(TabularReport):
    """Report of what one `Acceleration` has done so far.

    Attributes:
        preset: its name.
        techniques: names of those switched on.
        stages: counts by sampled stage.
        seconds: wall-clock seconds by pipeline stage, the device waited for, added up over objects.
        objects: finished objects.
        voxels_before, voxels_after: voxels of the latent stage before and after aggregation, added up.
        peak_memory_bytes: the most that was held during one of the runs, on the CUDA device or else by the process; see
            `fastsam3d.basics.peak_memory`. 0 where unknown, and before the first run has ended.
        network_flops: operations by stage; empty where the sizes of the networks are not known.
        exact_flops: operations of the networks that each exact saving spared, by its switch.
        passes: of the networks, by stage, and under "layout" those of the layout alone.
        notes: which savings this very pipeline allows or not, in words.
        details: plain values that single exact savings tell, by name.
    """

    preset: str
    techniques: tuple[str, ...] = ()
    stages: dict[str, StageReport] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    objects: int = 0
    voxels_before: int = 0
    voxels_after: int = 0
    peak_memory_bytes: int = 0
    network_flops: dict[str, NetworkFlops] = field(default_factory=dict)
    exact_flops: dict[str, float] = field(default_factory=dict)
    passes: dict[str, Passes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    details: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add_object(self, seconds: dict[str, float]) -> None:
        """Adds one finished object's seconds by stage."""
        self.objects += 1
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    def add(self, other: Report) -> None:
        """Adds the counts of another acceleration with the same settings, its objects included."""
        self.objects += other.objects
        self.voxels_before += other.voxels_before
        self.voxels_after += other.voxels_after
        self.peak_memory_bytes = max(self.peak_memory_bytes, other.peak_memory_bytes)
        for mine, theirs in ((self.seconds, other.seconds), (self.exact_flops, other.exact_flops)):
            for name, value in theirs.items():
                mine[name] = mine.get(name, 0.0) + value
        for name, passes in other.passes.items():
            self.passes[name] = self.passes.get(name, Passes()) + passes
        for name, counts in other.stages.items():
            _add_fields(self.stages.setdefault(name, StageReport()), counts)
        for name, flops in other.network_flops.items():
            _add_fields(self.network_flops.setdefault(name, NetworkFlops()), flops)

    @property
    def total(self) -> DiffusionTotal:
        """Sums over all stages and objects."""
        stages, flops = self.stages.values(), self.network_flops.values()
        return DiffusionTotal(
            sum(self.seconds.values()),
            sum(part.plain for part in flops),
            sum(part.computed for part in flops),
            sum(stage.evaluations for stage in stages),
            sum(stage.forecast for stage in stages),
        )

    def rows(self) -> list[dict[str, Any]]:
        """The table of stages. Numbers that a stage does not have are None."""
        rows = []
        for name in dict.fromkeys([*self.seconds, *self.stages, *self.network_flops]):
            stage, flops = self.stages.get(name), self.network_flops.get(name)
            rows.append(
                {
                    "stage": name,
                    "seconds": self.seconds.get(name),
                    "evaluations": stage and stage.evaluations,
                    "forecast": stage and stage.forecast,
                    "tokens_kept": stage.tokens_kept if stage and stage.tokens_possible else None,
                    "flop_untouched": flops and flops.plain,
                    "flop_computed": flops and flops.computed,
                }
            )
        return rows

    @property
    def voxels_kept(self) -> float:
        """Share of the voxels that aggregation left, 0..1."""
        return self.voxels_after / self.voxels_before if self.voxels_before else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, ready for JSON, with the derived shares."""
        result = dataclasses.asdict(self)
        result["techniques"] = list(self.techniques)
        result["notes"] = list(self.notes)
        for name, stage in self.stages.items():
            result["stages"][name] |= {
                "evaluations": stage.evaluations,
                "forecast": stage.forecast,
                "tokens_kept": stage.tokens_kept,
            }
        result["voxels_kept"] = self.voxels_kept
        del result["network_flops"], result["exact_flops"], result["passes"]
        result["savings"] = self.savings()
        return result

    def savings(self) -> dict[str, Any]:
        """Returns what was saved, exactly and by approximation, as plain values; `savings_lines` puts it in words.

        `flop`: operations of the networks, in all, by stage and by exact saving. `evaluations` and `tokens`: of the
        sampled stages; those that did not run were forecast or left out, which is always approximate, and those that
        ran are cheaper by the exact savings.
        """
        stages = self.stages.values()
        total = NetworkFlops()
        for part in self.network_flops.values():
            total = NetworkFlops(total.plain + part.plain, total.exact + part.exact, total.computed + part.computed)
        constant = sum(s.unconditional_computed for s in stages) if "exact.zero_condition" in self.techniques else 0
        possible = sum(s.tokens_possible for s in stages)
        computed = sum(s.tokens_computed for s in stages)
        return {
            "flop": _flops(total),
            "flop_by_stage": {name: _flops(part) for name, part in self.network_flops.items()},
            "flop_by_exact_saving": dict(self.exact_flops),
            "evaluations": {
                "computed": sum(s.evaluations for s in stages),
                "shortened_exactly": constant,
                "left_out_approximately": sum(s.forecast for s in stages),
            },
            "tokens": {"computed": computed, "left_out_approximately": possible - computed},
        }

    def _in_words(self) -> str:
        """The techniques that approximate, by name, and how many exact savings are on."""
        parts = [name for name in self.techniques if not name.startswith("exact.")]
        exact = len(self.techniques) - len(parts)
        if exact:
            parts.append(f"{exact} exact saving{'' if exact == 1 else 's'}")
        return ", ".join(parts) or "nothing is skipped"

    def __str__(self) -> str:
        # A pipeline may have more stages than one of its modes runs.
        idle = any(stage.runs for stage in self.stages.values())
        unmeasured = [name for name, stage in self.stages.items() if name not in self.seconds]
        names = [*self.seconds, *(name for name in unmeasured if self.stages[name].runs or not idle)]
        rows = [("stage", "seconds", "computed", "forecast", "tokens kept")]
        for name in names:
            stage = self.stages.get(name)
            seconds = f"{self.seconds[name]:.3f}" if name in self.seconds else "-"
            if stage is None:
                rows.append((name, seconds, "", "", ""))
            else:
                kept = f"{stage.tokens_kept:.0%}" if stage.tokens_possible else "-"
                rows.append((name, seconds, str(stage.evaluations), str(stage.forecast), kept))
        total = self.total
        rows.append(("total", f"{total.seconds:.3f}", str(total.evaluations), str(total.forecast), ""))
        head = f"preset {self.preset} ({self._in_words()}), {self.objects} object{'' if self.objects == 1 else 's'}"
        tail = []
        if self.voxels_before:
            tail.append(f"voxels {self.voxels_before} -> {self.voxels_after} ({self.voxels_kept:.0%})")
        if self.peak_memory_bytes:
            tail.append(f"peak memory {self.peak_memory_bytes / 2**20:.0f} MiB")
        facts = [f"{name}: {text}" for name, text in savings_lines(self.savings())]
        facts += [f"note: {note}" for note in self.notes]
        return "\n".join([head, *text_table(rows), *facts, *([", ".join(tail)] if tail else [])])


def _add_fields(total: Any, part: Any) -> None:
    for name, value in vars(part).items():
        setattr(total, name, getattr(total, name) + value)


def _flops(part: NetworkFlops) -> dict[str, float]:
    return dataclasses.asdict(part) | {
        "saved_exact": part.saved_exact,
        "saved_approximate": part.saved_approximate,
    }


def savings_lines(savings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, how much) in words, from `Report.savings()`; nothing where nothing was booked."""
    flop = savings["flop"]
    plain = flop["plain"]
    if plain <= 0:
        return []
    exact, approximate = flop["saved_exact"] / plain, flop["saved_approximate"] / plain
    unit, name = (1e12, "TFLOP") if plain >= 1e11 else (1e9, "GFLOP")
    text = f"{plain / unit:.3g} {name} untouched, {flop['computed'] / unit:.3g} {name} computed"
    if 0 < flop["computed"] < 0.995 * plain:
        text += f": {plain / flop['computed']:.1f} times less"
    lines = [("network work", text), ("saved", f"{exact:.0%} exactly, {approximate:.0%} by approximation")]
    shares = {switch: value / plain for switch, value in savings["flop_by_exact_saving"].items()}
    if any(share >= 0.005 for share in shares.values()):
        parts = [f"{switch} {share:.0%}" for switch, share in shares.items() if share >= 0.005]
        lines.append(("exact savings", ", ".join(parts)))
    return lines
