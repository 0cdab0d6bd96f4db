"""Timed reconstructions, and all methods on one object.

What is timed is `pipeline.run`: seconds from image and mask in memory to mesh in memory, the device synchronised at
both ends. Attaching a method is not timed (it happens once in the life of a pipeline), metrics are not timed. The
order of methods rotates from object to object, so that a machine that grows warm or busy favours nobody.

The judge is fidelity to the result of "off" for the same object and noise: with a generative model the truth is only
one of many plausible completions, and its metrics hardly tell methods apart. The row "other_seed" shows how far two
results of the untouched pipeline lie from one another. A second judge is the distance to the limit, the converged
solution for that noise, of which "off" is an approximation too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from fastsam3d.basics.peak_memory import PeakMemory
from fastsam3d.basics.record_log import Record
from fastsam3d.evaluation.measuring.counters import counted_evaluations, counted_work, synchronise
from fastsam3d.evaluation.measuring.methods import LIMIT, OFF, OTHER_SEED, Method
from fastsam3d.evaluation.metrics.outcome import Outcome, against_limit, against_outcome, against_truth, outcome_of
from fastsam3d.evaluation.metrics.surfaces import SURFACE_POINTS
from fastsam3d.evaluation.metrics.true_shape import Reference, reference_shape

NOISE_SHIFT = 500_000_009
"""Added to the seed of the noise for the row `other_seed`."""


class Case:
    """One object to reconstruct: its view, and its truth, which is worked out once, when it is first asked for."""

    def __init__(self, seed: int, make_view: Callable[[int], Any], points: int = SURFACE_POINTS) -> None:
        self.seed, self._make_view, self._points = seed, make_view, points

    @cached_property
    def view(self) -> Any:
        """View of the object, with `.object`, `.image`, `.mask`, `.pointmap` and `.pose`."""
        return self._make_view(self.seed)

    @cached_property
    def reference(self) -> Reference:
        """The true shape."""
        return reference_shape(self.view.object, points=self._points)


class Runner:
    """Runs methods on objects and prepares the results for comparison.

    Args:
        pipeline: what `load_pipeline` gives.
        device: where it is, "cpu" or "cuda".
        points: surface points of the metrics.
    """

    def __init__(self, pipeline: Any, device: str = "cpu", points: int = SURFACE_POINTS) -> None:
        self.pipeline, self.device, self.points = pipeline, device, points

    def run(self, method: Method, case: Case, shift: int = 0) -> tuple[Outcome, Record]:
        """Runs one timed reconstruction; returns its mesh prepared for comparison, and its cost."""
        view = case.view
        with (
            method.attached(self.pipeline) as acceleration,
            counted_evaluations(self.pipeline) as counts,
            PeakMemory(self.device) as memory,
        ):
            synchronise(self.device)
            start, start_cpu = time.perf_counter(), time.process_time()
            result = self.pipeline.run(view.image, view.mask, seed=case.seed + shift, pointmap=view.pointmap)
            synchronise(self.device)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
            work = counted_work(self.pipeline, result, counts, acceleration)
        record = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            **work,
            "peak_memory_mib": memory.mebibytes,
            "stage_seconds": dict(result.stage_seconds),
        }
        return outcome_of(result, case.seed, self.points), record

    def measure(
        self, methods: Sequence[Method], case: Case, number: int, *, noise_row: bool, limit: bool = False
    ) -> list[Record]:
        """Records of every method on one object, metrics and fidelity to "off" included.

        Args:
            methods: among them "off".
            number: of the object, by which the order of the methods is turned.
            noise_row: also "off" with other noise.
            limit: also the converged solution, and every method's distance to it.
        """
        runs = [(method.name, method, 0) for method in methods]
        if noise_row:
            off = next(method for method in methods if method.name == OFF)
            runs.append((OTHER_SEED, off, NOISE_SHIFT))
        if limit:
            runs.append((LIMIT, Method(LIMIT, LIMIT), 0))
        outcomes: dict[str, Outcome] = {}
        own: dict[str, Record] = {}
        for name, method, shift in rotated(runs, number):
            if method.matched_to is not None:
                method = method.matched(self.pipeline, own[method.matched_to])
            outcomes[name], own[name] = self.run(method, case, shift)
            own[name].update(against_truth(outcomes[name], case.reference, case.view.pose))
        records = []
        for name, _, _ in runs:
            compared = against_outcome(outcomes[name], outcomes[OFF])
            if limit:
                compared |= against_limit(outcomes[name], outcomes[LIMIT])
            records.append({"method": name, "family": case.reference.family, **own[name], **compared})
        return records


def rotated(runs: Sequence[tuple[str, Method, int]], number: int) -> list[tuple[str, Method, int]]:
    """Runs of the object with this number: the order turns, but a control comes after what it is matched to."""
    turn = number % len(runs)
    order = [*runs[turn:], *runs[:turn]]
    for run in [run for run in order if run[1].matched_to is not None]:
        names = [name for name, _, _ in order]
        place, partner = names.index(run[0]), names.index(str(run[1].matched_to))
        if place < partner:
            order.insert(partner, order.pop(place))
    return order
