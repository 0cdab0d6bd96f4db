"""Counts the operations of a run: of the untouched pipeline, with exact savings alone, and as it ran.

The only account of operations: reports, the benchmark, `tune` and the command `flops` read it. Costs of single passes
come from the host (`Costs`), numbers of passes from the run (`RunPasses`), or from a plan; the rest is arithmetic. The
difference of the first two numbers is the exact saving, that of the last two the approximate one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fastsam3d.diffusion.exact.saving import savings, unchanged
from fastsam3d.diffusion.passes import LAYOUT, Passes, RunPasses, WorkCount
from fastsam3d.diffusion.report import NetworkFlops, Report
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STRUCTURED_LATENT, Trajectory

SHARED = "shared_features"
FIRST = "first_pass"


class PassFlops(Protocol):
    """One pass of a velocity network by its parts, see `fastsam3d.sam3d.models.flops.EvaluationFlops`."""

    @property
    def tokens(self) -> float: ...

    @property
    def cross(self) -> float: ...

    @property
    def condition(self) -> float: ...

    @property
    def rest(self) -> float: ...

    @property
    def modulation(self) -> float: ...

    @property
    def table_step(self) -> float: ...

    @property
    def prefix_tokens(self) -> float: ...

    @property
    def prefix_rest(self) -> float: ...


class Costs(Protocol):
    """FLOP of a pipeline's networks from their sizes, see `fastsam3d.sam3d.models.flops.ModelFlops`."""

    def counts(self, voxels: Any) -> Any:
        """Sizes of sparse networks on voxels `[N, 4]`, or on an index of them."""

    def sampling(
        self, stage: str, counts: Any = None, layout: bool = True, shape_tokens: int | None = None
    ) -> PassFlops:
        """One pass of a kind of stage's network; `counts` for the latent stage, the others for the structure stage."""

    def layout_alone(self) -> PassFlops:
        """One pass of the layout tokens alone through the network of the structure stage."""

    def others(self, counts: Any) -> Mapping[str, float]:
        """FLOP of one object by network, for all networks but the velocity networks."""


@runtime_checkable
class StagedCosts(Protocol):
    """Costs of a pipeline whose stages of one kind have networks of different sizes."""

    def of_stage(self, stage: str) -> Costs:
        """Costs with the network of this stage, by its name, for that of its kind."""


def _of_stage(costs: Costs, stage: str) -> Costs:
    return costs.of_stage(stage) if isinstance(costs, StagedCosts) else costs


def sampling_flops(
    parts: PassFlops, passes: Passes, exact: Collection[str] = (), runs: int = 1, steps: float | None = None
) -> float:
    """FLOP of the network passes of sampling runs.

    Args:
        parts: one plain pass.
        passes: those that ran, all runs together.
        exact: names of the exact savings that were switched on.
        runs: sampling runs; what is kept for a run is computed once in each.
        steps: of all runs together, for which `time_tables` computes modulation; the conditional passes by default.
    """
    return _stepwise(parts, passes, exact, runs, steps)[-1][1]


def saved_by_switch(
    parts: PassFlops, passes: Passes, exact: Collection[str], runs: int = 1, steps: float | None = None
) -> dict[str, float]:
    """FLOP that each exact saving takes off what the savings outside of it left; those without a count are left out."""
    totals = _stepwise(parts, passes, exact, runs, steps)
    return {name: before - after for (_, before), (name, after) in itertools.pairwise(totals)}


def _stepwise(
    parts: PassFlops, passes: Passes, exact: Collection[str], runs: float, steps: float | None
) -> list[tuple[str, float]]:
    """("", FLOP without savings), then for every saving that counts, from the outermost inwards, (name, FLOP left)."""
    steps = passes.conditional if steps is None else steps
    count = WorkCount.plain(passes)
    totals = [("", _work_flops(parts, count))]
    for saving in reversed(savings(exact)):
        if saving.count is not unchanged:
            count = saving.count(count, passes, runs, steps)
            totals.append((saving.name, _work_flops(parts, count)))
    return totals


def _work_flops(parts: PassFlops, count: WorkCount) -> float:
    total = parts.tokens * count.tokens + (parts.rest - parts.modulation) * count.rest
    total += parts.cross * (count.cross_conditional + count.cross_unconditional)
    total += parts.modulation * count.modulation + parts.table_step * count.table_steps
    total += parts.condition * (count.condition_conditional + count.condition_unconditional)
    return total - parts.prefix_tokens * count.prefix_tokens - parts.prefix_rest * count.prefix_rest


def extra_flops(parts: PassFlops, passes: Passes, exact: Collection[str] = ()) -> float:
    """FLOP of passes of another size, in a run whose whole passes have computed the kept values."""
    return sampling_flops(parts, passes, exact, runs=0, steps=0)


def unconditional_flops(parts: PassFlops, exact: Collection[str] = ()) -> float:
    """FLOP of an unconditional pass beside a conditional one, in a run that has computed the kept values."""
    return extra_flops(parts, Passes.full(1, 1), exact) - extra_flops(parts, Passes.full(1, 0), exact)


def object_flops(
    costs: Costs,
    counts: Any,
    passes: Mapping[str, Passes],
    exact: Collection[str] = (),
    steps: Mapping[str, float] | None = None,
    layout: bool = True,
) -> dict[str, float]:
    """FLOP of one object by network, in the order in which they run, for planned numbers of passes.

    Args:
        costs: of the networks.
        counts: of the latent stage's voxels, as `costs.counts` gives them.
        passes: by stage, and perhaps under `LAYOUT` those of the layout alone.
        exact: names of the exact savings.
        steps: by stage; the conditional passes by default.
        layout: whether the structure stage has layout tokens.
    """
    sampled = {}
    for stage in (SPARSE_STRUCTURE, STRUCTURED_LATENT):
        parts = costs.sampling(stage, counts, layout)
        sampled[stage] = sampling_flops(parts, passes[stage], exact, steps=None if steps is None else steps[stage])
    if LAYOUT in passes:
        sampled[SPARSE_STRUCTURE] += extra_flops(costs.layout_alone(), passes[LAYOUT], exact)
    others = costs.others(counts)
    order = ("ss_condition", SPARSE_STRUCTURE, "ss_decode", "slat_condition", STRUCTURED_LATENT)
    every = {**others, **sampled}
    return {name: every[name] for name in (*order, *(name for name in others if name not in order))}


class Operations:
    """Adds up the operations of the objects that one pipeline makes.

    Args:
        report: where they go.
        costs: of the pipeline's networks; None where a host does not know them, and then nothing is booked.
        exact: names of the exact savings that are on.
        make_index: gives index tables of the latent stage's voxels, if possible those that the run has built.
    """

    def __init__(
        self,
        report: Report,
        costs: Costs | None,
        exact: Collection[str],
        make_index: Callable[[Tensor], Any] = lambda coords: coords,
    ) -> None:
        self._report, self._costs, self._exact, self._make_index = report, costs, exact, make_index
        self._counts: Any = None  # of the voxels that the latent stage ran on
        self._unmerged: Any = None  # of the same object's voxels before a technique merged them
        self._spared: dict[str, float] = {}
        self._kept: dict[str, int] = {}  # passes for which a kept velocity stood in, by stage of the run in progress

    def merged(self, before: Tensor, after: Tensor | None) -> None:
        """Notes that a technique merged voxels `before [N, 4]` to `after [M, 4]`; None where it left them."""
        self._unmerged = None if after is None or self._costs is None else self._costs.counts(before)

    def sampled(self, stage: str, trajectory: Trajectory, own: Passes, computed: RunPasses) -> None:
        """Books one sampling run that has ended.

        Args:
            stage: name of the stage.
            trajectory: of the run; has the stage's kind.
            own: passes that the untouched pipeline would have run for one object.
            computed: those that ran, of all objects of the batch.
        """
        kept = self._kept.pop(stage, 0)
        passes = self._report.passes
        passes[stage] = passes.get(stage, Passes()) + computed.whole + computed.subsets
        if computed.layout != Passes():
            passes[LAYOUT] = passes.get(LAYOUT, Passes()) + computed.layout
        if self._costs is None:
            return
        costs, exact, coords = _of_stage(self._costs, stage), self._exact, trajectory.coords
        kind = trajectory.stage
        if kind == SPARSE_STRUCTURE:
            self._unmerged = self._counts = None
            parts = before = costs.sampling(kind, layout=trajectory.layout)
        elif coords is None:
            return
        else:
            self._counts = costs.counts(self._make_index(coords))
            parts = costs.sampling(kind, self._counts)
            before = parts if self._unmerged is None else costs.sampling(kind, self._unmerged)
        # Objects of a batch pass together and each is counted; their own passes are given for one.
        objects = trajectory.batch
        total = sampling_flops(parts, computed.whole, exact, objects, objects * trajectory.count)
        total += extra_flops(costs.layout_alone(), computed.layout, exact)
        for subset, alone in computed.alone:
            if coords is None:
                seen = costs.sampling(kind, layout=trajectory.layout, shape_tokens=len(subset))
            else:
                seen = costs.sampling(kind, costs.counts(coords[subset]))
            total += extra_flops(seen, alone, exact)
        plain, exactly = (objects * sampling_flops(before, own, names) for names in ((), exact))
        spared = kept * objects * unconditional_flops(parts, exact)
        self._add(stage, plain, exactly - spared, total - spared)
        if spared:
            self._add_exact(FIRST, spared)
        if computed.decodings:
            self._add("ss_decode", 0.0, 0.0, computed.decodings * costs.others(None).get("ss_decode", 0.0))
        for name, saved in saved_by_switch(before, own, exact).items():
            self._add_exact(name, objects * saved)

    def finished(self, seconds: Mapping[str, float]) -> None:
        """Books the networks of a finished object; `seconds` names the stages that ran."""
        if self._costs is None:
            return
        computed = self._costs.others(self._counts)
        plain = computed if self._unmerged is None else self._costs.others(self._unmerged)
        for name, value in plain.items():
            if name in seconds:
                # Never more than one object has: what a batch spared in the encodings of several is shared out.
                spared = min(self._spared.get(name, 0.0), value)
                self._add(name, value, value - spared, computed[name] - spared)
                if spared:
                    self._add_exact(SHARED, spared)
                    self._spared[name] -= spared
        self._unmerged = None  # the next object may not be asked about

    def broke_off(self) -> None:
        """Drops the savings of an object that failed, so that the next one is not credited with them."""
        self._spared.clear()
        self._kept.clear()
        self._unmerged = None

    def reused(self, stage: str, flops: float) -> None:
        """Books `flops` that a kept encoding spared in `stage`, for the object in work."""
        self._spared[stage] = self._spared.get(stage, 0.0) + flops

    def kept_pass(self, stage: str) -> None:
        """Books an unconditional pass of a run in progress for which a kept velocity stood in, for all its objects."""
        self._kept[stage] = self._kept.get(stage, 0) + 1

    def _add_exact(self, switch: str, flops: float) -> None:
        self._report.exact_flops[switch] = self._report.exact_flops.get(switch, 0.0) + flops

    def _add(self, stage: str, plain: float, exact: float, computed: float) -> None:
        entry = self._report.network_flops.setdefault(stage, NetworkFlops())
        entry.plain, entry.exact, entry.computed = entry.plain + plain, entry.exact + exact, entry.computed + computed
