"""Exact saving: computes values that depend only on the time of a step for all steps of a run at once.

Modulation and time embedding see nothing but the time (and the step size, which is constant). Row by row, in every pass
of every branch, their matrices are read for a single row; all steps of a run together take about as long as one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, StageTarget, register_saving
from fastsam3d.diffusion.passes import Passes, WorkCount
from fastsam3d.diffusion.sites import EvaluationState, Forward, TimeSite


class TimeTable:
    """Output of one time-dependent module at every step of a run.

    Memory: steps x width of the module's output, for the length of a run.

    Args:
        site: the module, and what it is given at all steps.
        state: says which run and which time it is.
    """

    def __init__(self, site: TimeSite, state: EvaluationState) -> None:
        self.site, self.state = site, state
        self._rows: Tensor | None = None
        self._row: dict[float, int] = {}

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self._rows, self._row = None, {}

    def finish(self) -> None:
        """Releases the kept rows."""
        self.start()

    def wrap(self, original: Forward) -> Forward:
        """The module's `forward`; at a time that is not a step of the run it is the original."""

        def forward(x: Tensor) -> Any:
            time, times = self.state.time, self.state.times
            if time is None or len(times) == 0:
                return original(x)
            if self._rows is None:
                self._row = {value: index for index, value in enumerate(times)}
                # Without waiting for the device, as everything inside the steps.
                grid = torch.tensor(times, dtype=torch.float32).to(x.device, non_blocking=True)
                self._rows = original(self.site.inputs(grid))
            row = self._row.get(time)
            if row is None:
                return original(x)
            return self._rows[row : row + 1].expand(x.shape[0], -1)

        return forward


def _attach(target: StageTarget) -> None:
    for site in target.host.time_sites(target.stage):
        table = TimeTable(site, target.runner.state)
        target.patches.replace(site.module, "forward", table.wrap)
        target.keep(table)


def _count(count: WorkCount, passes: Passes, runs: float, steps: float) -> WorkCount:
    """Modulation is computed once a step of the run, not once a pass."""
    return replace(count, modulation=0.0, table_steps=steps)


register_saving(
    ExactSaving(
        "time_tables",
        "Modulation computed for all steps at once. Faster; memory: blocks x steps x 6 widths.",
        Nesting.TIME,
        sites=("time_sites",),
        attach_stage=_attach,
        count=_count,
    )
)
