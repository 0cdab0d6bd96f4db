"""The limit of a sampler: the solution of its ODE to which more and more steps converge, for the same noise.

The pipeline's own sampler is an approximation too, 25 steps of Euler's method. Here the same velocity is integrated by
Heun's method in many more, on a grid with a node exactly where guidance ends, so that no step spans the kink there. How
many intervals are enough was measured by doubling them (docs/benchmark.md). Methods of higher order gain nothing: the
networks embed time by fast waves, so that velocities are not smooth enough between two nodes for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from fastsam3d.evaluation.measuring.counters import STAGES

INTERVALS: Mapping[str, int] = {"nfe_ss": 48, "nfe_slat": 24}
"""Intervals of a converged run, by the column of its stage; each takes two velocities."""
BENDS: Mapping[str, float] = {"nfe_ss": 1.5, "nfe_slat": 3.0}
"""Bend of the grids (`time_grid`) at which they converge soonest, whatever grid the pipeline has."""

BEHIND = 1e-9
"""Time by which a velocity behind the guidance edge is asked for later."""


@contextmanager
def converged(pipeline: Any, finer: int = 1) -> Iterator[Any]:
    """Both stages are integrated to the limit inside a `with` block, on the exact tier, which changes no result.

    Args:
        pipeline: the native pipeline, not accelerated.
        finer: factor of the number of intervals, to see whether they are enough.

    Yields:
        The `Acceleration` of the exact tier, whose report counts the evaluations.
    """
    from fastsam3d.acceleration.handle import accelerate
    from fastsam3d.acceleration.patching import Patches

    patches = Patches()
    try:
        for column, name in STAGES.items():
            generator = pipeline.models[name]
            edge = generator.reverse_fn.interval[1] / 1000.0
            times = limit_times(finer * INTERVALS[column], BENDS[column], edge)
            # Not by `replace`: the exact tier goes around it, as around a sampler of the pipeline itself.
            patches.set(generator, "sample", sampler_of(generator, times, edge))
        with accelerate(pipeline, "exact") as acceleration:
            yield acceleration
    finally:
        patches.restore()


def limit_times(intervals: int, bend: float, edge: float) -> list[float]:
    """A bent grid from 0 to 1 with a node exactly on the guidance edge, where that lies inside."""
    from fastsam3d.diffusion.maths import bent_to_edge
    from fastsam3d.sam3d.models.flow_matching import time_grid

    if not 0.0 < edge < 1.0 or intervals < 2:
        return time_grid(intervals, bend)
    times = time_grid(intervals, bent_to_edge(intervals, bend, edge))
    nearest = min(range(len(times)), key=lambda k: abs(times[k] - edge))
    return [edge if k == nearest else time for k, time in enumerate(times)]


def heun(velocity: Callable[[Any, float], Any], x: Any, start: float, end: float, combine: Callable[..., Any]) -> Any:
    """One interval of Heun's method of order 2 (Hairer, Norsett and Wanner I, section II.1).

    Args:
        velocity: (state, time) -> its derivative.
        x: state at `start`.
        start: time.
        end: time.
        combine: applies a function of tensors to states.
    """
    step = end - start
    first = velocity(x, start)
    second = velocity(combine(lambda a, b: a + step * b.float(), x, first), end)
    return combine(lambda a, b, c: a + step / 2 * (b.float() + c.float()), x, first, second)


def sampler_of(generator: Any, times: list[float], edge: float) -> Callable[..., Any]:
    """Makes the `sample` of a generator that integrates its velocity on a grid of `limit_times`.

    Args:
        generator: its `velocity` is asked, so that what is attached to it acts.
        times: of the grid, with a node on the edge.
        edge: time at which guidance ends.
    """

    def sample(noise: Any, condition: Any, *extra: Any, progress: Any = None) -> Any:
        from fastsam3d.sam3d.models.flow_matching import combine

        x = noise
        for start, end in pairwise(times):

            def velocity(state: Any, time: float, start: float = start) -> Any:
                # The interval behind the edge begins on it, where the pipeline's own test still says guided.
                behind = start >= edge and time == start
                return generator.velocity(state, time + BEHIND if behind else time, condition, *extra)

            x = heun(velocity, x, start, end, combine)
        return x

    return sample
