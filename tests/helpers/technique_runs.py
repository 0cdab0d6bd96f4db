"""A sampling run whose network is a formula: what a velocity policy makes of it, and what it computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory
from fastsam3d.sam3d.models.flow_matching import time_grid

SPARSE_TIMES = tuple(time_grid(25, 3.0))
SPARSE_GUIDED = tuple(time <= 0.5 for time in SPARSE_TIMES[:-1])


@dataclass
class Run:
    """Velocities used at each step, indices of the computed steps, and the state at the end."""

    times: tuple = ()
    used: list = field(default_factory=list)
    computed: list = field(default_factory=list)
    end: dict = field(default_factory=dict)

    def values(self, name):
        return [velocity[name].flatten()[0].item() for velocity in self.used]


def even(steps):
    return tuple(k / steps for k in range(steps + 1))


def sample(
    make,
    conditional,
    *,
    delta=None,
    stage="sparse_structure",
    times=SPARSE_TIMES,
    guided=None,
    names=("shape", "translation"),
    start=1.0,
    batch=1,
    **trajectory,
):
    """Integrates `dx/dt = conditional(x, t, index) (+ delta where guided)` under a policy.

    Args:
        make: `trajectory -> policy`.
        conditional, delta: functions of (state tensor, time, step index) to a number or tensor.
        start: initial value of every entry, a number or a tensor `[batch, 1, 2]`.
    """
    guided = tuple(guided) if guided is not None else tuple(t <= 0.5 for t in times[:-1])
    policy = make(Trajectory(stage, tuple(times), guided, **trajectory))
    x = {name: torch.zeros(batch, 1, 2) + start for name in names}
    run = Run(times=tuple(times))
    for index in range(len(guided)):
        step = Step(index, tuple(times), guided)

        def evaluate(state, tokens=None, step=step, **options):
            run.computed.append(step.index)

            def apply(function):
                return {name: torch.zeros_like(v) + function(v, step.time, step.index) for name, v in state.items()}

            return GuidedVelocity(apply(conditional), apply(delta) if delta and step.is_guided else None)

        velocity = policy.velocity(x, step, evaluate)
        run.used.append(velocity)
        x = {name: x[name] + (step.next_time - step.time) * velocity[name] for name in x}
    run.end = x
    return run
