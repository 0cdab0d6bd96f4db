"""One stage under acceleration: the state of its runs, and the counting of what was computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from fastsam3d.hosts.base import EvaluationState
from fastsam3d.report import StageReport
from fastsam3d.techniques.base import (
    Evaluate,
    EvaluationPolicy,
    GuidedVelocity,
    Step,
    Trajectory,
    Velocity,
    VelocityPolicy,
)
from fastsam3d.techniques.fewer_steps import avoid_edge


class Keeper(Protocol):
    """Something that keeps values for the length of a run."""

    def start(self) -> None: ...

    def finish(self) -> None: ...


class StageSession:
    """Joins policies, exact savings and counting for the runs of one stage.

    Args:
        state: shared with what is attached inside the stage's network.
        report: where counts go.
        velocity_policy: makes the policy that decides when the network runs, or None.
        evaluation_policy: makes the policy that decides how it runs, or None.
        steps: step count of the control technique; None leaves the pipeline's own.
    """

    def __init__(
        self,
        state: EvaluationState,
        report: StageReport,
        velocity_policy: Callable[[Trajectory], VelocityPolicy | None],
        evaluation_policy: Callable[[Trajectory], EvaluationPolicy | None],
        steps: int | None = None,
    ) -> None:
        self.state = state
        self.report = report
        self.keepers: list[Keeper] = []
        self._make_velocity, self._make_evaluation = velocity_policy, evaluation_policy
        self._steps = steps
        self._trajectory: Trajectory | None = None
        self._velocity: VelocityPolicy | None = None
        self._evaluation: EvaluationPolicy | None = None
        self._token_count = 0

    def steps(self, configured: int, times: Callable[[int], Sequence[float]], edges: Sequence[float]) -> int:
        """Step count of the run that is about to start; the pipeline's own unless the control is on."""
        return configured if self._steps is None else avoid_edge(self._steps, times, edges)

    def start(self, trajectory: Trajectory) -> None:
        """Begins a run: fresh state for every policy."""
        self.finish()
        self._trajectory = trajectory
        self._velocity = self._make_velocity(trajectory)
        self._evaluation = self._make_evaluation(trajectory)
        self._token_count = 0 if trajectory.cells is None else int(trajectory.cells.max()) + 1
        for keeper in self.keepers:
            keeper.start()
        self.state.running = True
        self.report.runs += 1

    def finish(self) -> None:
        """Ends a run, also one that broke off: nothing of it is kept."""
        self.state.reset()
        for keeper in self.keepers:
            keeper.finish()
        self._trajectory = self._velocity = self._evaluation = None

    def velocity(self, x: Velocity, time: float, evaluate: Evaluate) -> Velocity:
        """Velocity of the step at `time`, by the network or by a policy's forecast."""
        trajectory = self._trajectory
        assert trajectory is not None
        # By nearest time and not by counting calls: a pipeline that asks twice for one step stays in step.
        index = min(range(trajectory.count), key=lambda j: abs(trajectory.times[j] - time))
        step = Step(index, trajectory.times, trajectory.guided)
        counted = _Counted(evaluate, self.report, self._token_count)
        source: Evaluate = counted
        if self._evaluation is not None:
            source = _Through(self._evaluation, step, counted)
        result = source(x).combined() if self._velocity is None else self._velocity.velocity(x, step, source)
        if counted.calls == 0:
            self.report.conditional_forecast += 1
            self.report.unconditional_forecast += int(step.is_guided)
        return result


class _Counted:
    """The real network, with its evaluations counted."""

    def __init__(self, evaluate: Evaluate, report: StageReport, token_count: int) -> None:
        self._evaluate, self._report, self._token_count = evaluate, report, token_count
        self.calls = 0

    def __call__(self, x: Velocity, tokens: Tensor | None = None) -> GuidedVelocity:
        result = self._evaluate(x, tokens)
        self.calls += 1
        branches = 1 if result.delta is None else 2
        self._report.conditional_computed += 1
        self._report.unconditional_computed += branches - 1
        self._report.tokens_possible += branches * self._token_count
        self._report.tokens_computed += branches * (self._token_count if tokens is None else len(tokens))
        return result


class _Through:
    """The network as an evaluation policy lets it be seen."""

    def __init__(self, policy: EvaluationPolicy, step: Step, evaluate: Evaluate) -> None:
        self._policy, self._step, self._evaluate = policy, step, evaluate

    def __call__(self, x: Velocity, tokens: Tensor | None = None) -> GuidedVelocity:
        if tokens is not None:
            return self._evaluate(x, tokens)
        return self._policy.evaluate(x, self._step, self._evaluate)
