"""Plans at which steps of a sampling run the network runs. Every number follows from the run itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence


def guidance_edges(guided: Sequence[bool]) -> tuple[int, ...]:
    """Steps whose guidance differs from that of the step before."""
    return tuple(j for j in range(1, len(guided)) if guided[j] != guided[j - 1])


def full_steps(guided: Sequence[bool], stride: int, warmup: int, edge_steps: int = 2) -> tuple[int, ...]:
    """The plan of strided step caching.

    Computed are the first `warmup` steps, then every `stride`-th after the last computed one, `edge_steps` steps
    from each guidance edge on (the velocity jumps there, and a slope needs two values of one side), and the last.

    Args:
        guided: for every step of the run, whether guidance is on.
        stride: distance of computed steps; 1 computes all.
        warmup: computed steps at the start, at least 1.
        edge_steps: computed steps from each edge on.

    Returns:
        Indices of the computed steps, ascending.
    """
    count = len(guided)
    forced = {count - 1, *(e + k for e in guidance_edges(guided) for k in range(edge_steps))}
    plan: list[int] = []
    for j in range(count):
        if not plan or j < warmup or j in forced or j - plan[-1] >= stride:
            plan.append(j)
    return tuple(plan)


def network_evaluations(full: Iterable[int], guided: Sequence[bool]) -> int:
    """Network evaluations of a plan: one for a step without guidance, two for one with."""
    return sum(2 if guided[j] else 1 for j in full)


def three_phases(steps: int) -> tuple[int, int, int]:
    """First phase's end, last phase's start and anchor step, as Fast3Dcache splits a run (arXiv 2511.22533)."""
    # Floor and ceiling of products such as 0.2 * 25 would trip over binary fractions; whole numbers do not.
    return steps // 5, math.ceil(3 * steps / 4), max(1, steps // 5)


def avoid_edge(steps: int, times: Callable[[int], Sequence[float]], edges: Sequence[float]) -> int:
    """The smallest count from `steps` on that puts no step exactly on a guidance edge.

    A step on the edge is still guided, over its whole length, which disturbs the layout (a grid with rescale 3 does
    so at every count that is divisible by 4).

    Args:
        steps: the count asked for.
        times: the time grid of a count.
        edges: times (0..1) at which guidance ends or begins.
    """
    inner = [e for e in edges if 0.0 < e < 1.0]
    for count in range(steps, steps + 8):
        if not any(abs(t - e) < 1e-9 for t in times(count)[:-1] for e in inner):
            return count
    return steps


def bent_to_edge(steps: int, rescale: float, edge: float) -> float:
    """The bend of a time grid, near `rescale`, with which one of `steps` steps begins on a guidance edge.

    The grid is `t_k = s / (1 + (rescale - 1) (1 - s))` with `s = k / steps`, as of all pipelines that are known here.
    The step begins a trace before the edge, so that rounding to fp32 cannot take it out of the guidance interval.

    Args:
        steps: of the run; with one step there is nothing to place, and `rescale` is returned.
        rescale: the wanted bend; 1 for equal steps, more for shorter steps near noise.
        edge: time, inside 0..1.
    """
    if steps < 2:
        return rescale
    place = edge - 2.5e-7
    share = place * rescale / (1 + place * (rescale - 1))  # of the steps, that lie before the edge
    before = min(max(round(steps * share), 1), steps - 1)
    own = before / steps
    return 1 + (own / place - 1) / (1 - own)


def chosen_steps(times: Sequence[float], count: int, bend: float, ends: float) -> tuple[int, ...]:
    """Steps of a given grid that lie nearest to a grid of `count` steps with short ones near noise and near data.

    The wanted grid is `t = m / (1 + (bend - 1) (1 - m))` with `m = s + ends (3 s^2 - 2 s^3 - s)` and `s = k / count`:
    `ends` shortens the steps at both ends, `bend` more those near noise.

    Args:
        times: of the given grid, its end included.
        count: steps to choose, at least 1; as many as there are at most.
        bend: more than 0; 1 treats both ends alike.
        ends: 0 (even) to less than 1.

    Returns:
        Indices of the steps, ascending; the first step is among them.
    """
    steps = len(times) - 1
    free, chosen = set(range(1, steps)), {0}
    for k in range(1, min(count, steps)):
        s = k / count
        m = s + ends * (3 * s * s - 2 * s**3 - s)
        wanted = m / (1 + (bend - 1) * (1 - m))
        nearest = min(free, key=lambda j: (abs(times[j] - wanted), j))
        free.remove(nearest)
        chosen.add(nearest)
    return tuple(sorted(chosen))
