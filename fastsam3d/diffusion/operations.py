"""Books what every run saved, exactly and approximately, in floating-point operations of the networks.

Nothing is measured: sizes come from the host, counts from the run, the rest is a few hundred multiplications a run.
Of a run three numbers are booked: what the untouched pipeline would have computed, the same with the exact savings, and
what was computed. The first difference is the exact saving, the second the approximate one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from fastsam3d.diffusion.report import NetworkFlops, Report
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, Trajectory
from fastsam3d.savings import Passes, PassFlops, sampling_flops, saved_by_switch

SHARED = "shared_features"


class Costs(Protocol):
    """FLOP of a pipeline's networks from their sizes, see `fastsam3d.sam3d.models.flops.ModelFlops`."""

    def sampling(self, stage: str, voxels: float, cells: float, layout: bool) -> PassFlops:
        """One pass of a stage's network; `voxels` and `cells` are those of the latent stage."""

    def others(self, voxels: float, cells: float) -> Mapping[str, float]:
        """Of one object, by network: everything that is no velocity network."""


class Ledger:
    """Adds up savings on a report.

    Args:
        report: where they go.
        costs: of the pipeline's networks; None where a host does not know them, and then nothing is booked.
        exact: names of the exact savings that are on.
    """

    def __init__(self, report: Report, costs: Costs | None, exact: Collection[str]) -> None:
        self._report, self._costs, self._exact = report, costs, exact
        self._voxels = (0.0, 0.0)  # of the latent stage: voxels and cells that it ran on
        self._spared: dict[str, float] = {}
        self._merged = 1.0  # how many times as many there were before a technique merged them

    def merged(self, before: int, after: int) -> None:
        """A technique left `after` of `before` voxels."""
        self._merged = before / max(after, 1)

    def sampled(self, stage: str, trajectory: Trajectory, own: Passes, computed: Passes) -> None:
        """One sampling run has ended.

        Args:
            stage, trajectory: which.
            own: passes that the untouched pipeline would have run for one object.
            computed: those that ran, of all objects of the batch.
        """
        if self._costs is None:
            return
        if stage == SPARSE_STRUCTURE:
            self._merged, self._voxels = 1.0, (0.0, 0.0)
            parts = before = self._costs.sampling(stage, 0, 0, trajectory.layout)
        else:
            voxels = 0 if trajectory.coords is None else len(trajectory.coords)
            cells = voxels / 4 if trajectory.cells is None else float(trajectory.cells.max()) + 1
            self._voxels = (voxels, cells)
            parts = self._costs.sampling(stage, voxels, cells, True)
            before = self._costs.sampling(stage, voxels * self._merged, cells * self._merged, True)
        # Objects of a batch pass together and each is counted; their own passes are given for one.
        objects = trajectory.batch
        self._book(
            stage,
            objects * sampling_flops(before, own),
            objects * sampling_flops(before, own, self._exact),
            sampling_flops(parts, computed, self._exact, objects, objects * trajectory.count),
        )
        for name, saved in saved_by_switch(before, own, self._exact).items():
            self._add(name, objects * saved)

    def finished(self, seconds: Mapping[str, float]) -> None:
        """One object is done; `seconds` names the stages that ran."""
        if self._costs is None:
            return
        (voxels, cells), merged = self._voxels, self._merged
        plain, computed = self._costs.others(voxels * merged, cells * merged), self._costs.others(voxels, cells)
        for name, value in plain.items():
            if name in seconds:
                # Never more than one object has: what a batch spared in the encodings of several is shared out.
                spared = min(self._spared.get(name, 0.0), value)
                self._book(name, value, value - spared, computed[name] - spared)
                if spared:
                    self._add(SHARED, spared)
                    self._spared[name] -= spared
        self._merged = 1.0  # the next object may not be asked about

    def broke_off(self) -> None:
        """An object failed: what it spared is nobody's."""
        self._spared.clear()
        self._merged = 1.0

    def reused(self, stage: str, flops: float) -> None:
        """A kept encoding spared a pass of an encoder of `stage`, for the object in work."""
        self._spared[stage] = self._spared.get(stage, 0.0) + flops

    def _add(self, switch: str, flops: float) -> None:
        self._report.exact_flops[switch] = self._report.exact_flops.get(switch, 0.0) + flops

    def _book(self, stage: str, plain: float, exact: float, computed: float) -> None:
        entry = self._report.network_flops.setdefault(stage, NetworkFlops())
        entry.plain, entry.exact, entry.computed = entry.plain + plain, entry.exact + exact, entry.computed + computed
