"""One stage under acceleration: the state of its runs, and the counting of what was computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from fastsam3d.diffusion.batched_policy import BatchedPolicy, batch_size
from fastsam3d.diffusion.exact.graph_replay import GraphReplay
from fastsam3d.diffusion.report import StageReport
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, EvaluationState
from fastsam3d.diffusion.techniques.fewer_steps import avoid_edge
from fastsam3d.diffusion.vocabulary import (
    SHAPE,
    SPARSE_STRUCTURE,
    BlockPolicy,
    Evaluate,
    EvaluationPolicy,
    GuidedVelocity,
    Step,
    Trajectory,
    Velocity,
    VelocityPolicy,
)
from fastsam3d.errors import OneAtATime
from fastsam3d.savings import Passes


class Keeper(Protocol):
    """Something that keeps values for the length of a run."""

    def start(self) -> None:
        """Begins a run with nothing kept."""

    def finish(self) -> None:
        """Releases what was kept."""


class StageSession:
    """Joins policies, exact savings and counting for the runs of one stage.

    Args:
        state: shared with what is attached inside the stage's network.
        report: where counts go.
        velocity_policy: makes the policy that decides when the network runs, or None.
        evaluation_policy: makes the policy that decides how it runs, or None.
        block_policy: makes the policy that decides when a stack of blocks is replaced by its last change, or None.
        steps: step count of the control technique; None leaves the pipeline's own.
        shortcut: the stage runs in its distilled few-step mode, without guidance.
    """

    def __init__(
        self,
        state: EvaluationState,
        report: StageReport,
        velocity_policy: Callable[[Trajectory], VelocityPolicy | None],
        evaluation_policy: Callable[[Trajectory], EvaluationPolicy | None],
        block_policy: Callable[[Trajectory], BlockPolicy | None] = lambda trajectory: None,
        steps: int | None = None,
        shortcut: bool = False,
    ) -> None:
        self.state = state
        self.report = report
        self.keepers: list[Keeper] = []
        self.replay: GraphReplay | None = None
        self._make_velocity, self._make_evaluation = velocity_policy, evaluation_policy
        self._make_block_policy = block_policy
        self._steps, self.shortcut = steps, shortcut
        self.run_ended: Callable[[Trajectory, Passes, Passes], None] = lambda trajectory, own, computed: None
        self._own: Passes | None = None
        self._counts_before = StageReport()
        self._parts = Passes.full(0, 0)  # of this run: passes that stood in for whole ones, by what ran of them
        self.block_policy: BlockPolicy | None = None
        self.step_index = 0
        self._trajectory: Trajectory | None = None
        self._velocity: VelocityPolicy | None = None
        self._evaluation: EvaluationPolicy | None = None
        self.token_count = 0
        self.objects = 1

    def steps(self, configured: int, times: Callable[[int], Sequence[float]], edges: Sequence[float]) -> int:
        """Step count of the run that is about to start; the pipeline's own unless fewer are asked for."""
        self._own = None
        if self._steps is None or (self._steps >= configured and not self.shortcut):
            return configured
        low, high = (min(edges), max(edges)) if edges else (1.0, 0.0)
        self._own = Passes.full(configured, sum(low <= t <= high for t in times(configured)[:-1]))
        return self._steps if self.shortcut else min(configured, avoid_edge(self._steps, times, edges))

    def start(self, trajectory: Trajectory) -> None:
        """Begins a run: fresh state for every policy."""
        self.finish()
        self._trajectory = trajectory
        self._velocity = self._make_velocity(trajectory)
        self._evaluation = self._make_evaluation(trajectory)
        self.block_policy = self._make_block_policy(trajectory)
        self.token_count = 0 if trajectory.cells is None else int(trajectory.cells.max()) + 1
        self.objects = 1
        for keeper in self.keepers:
            keeper.start()
        self.state.running, self.state.times = True, trajectory.times[:-1]
        self.report.runs += 1
        self._counts_before = replace(self.report)
        self._parts = Passes.full(0, 0)

    def finish(self) -> None:
        """Ends a run, also one that broke off: nothing of it is kept."""
        if self._trajectory is not None and self._is_complete(self._trajectory):
            own = self._own or Passes.full(self._trajectory.count, sum(self._trajectory.guided))
            self.run_ended(self._trajectory, own, self._computed())
        self.state.reset()
        for keeper in self.keepers:
            keeper.finish()
        self._trajectory = self._velocity = self._evaluation = self.block_policy = None

    def _is_complete(self, trajectory: Trajectory) -> bool:
        now, before = self.report, self._counts_before
        done = now.conditional_computed + now.conditional_forecast
        done -= before.conditional_computed + before.conditional_forecast
        return done >= self.objects * trajectory.count

    def _computed(self) -> Passes:
        """Passes since the run began; those over part of the tokens with their share."""
        now, before = self.report, self._counts_before
        possible = now.tokens_possible - before.tokens_possible
        share = (now.tokens_computed - before.tokens_computed) / possible if possible else 1.0
        conditional = now.conditional_computed - before.conditional_computed
        unconditional = now.unconditional_computed - before.unconditional_computed
        parts = self._parts
        return Passes(
            conditional + parts.conditional,
            unconditional + parts.unconditional,
            share * conditional + parts.conditional_tokens,
            share * unconditional + parts.unconditional_tokens,
        )

    def add_part(self, branch: str, tokens: float, whole: float) -> None:
        """Books a pass that is not counted as computed: its share of the work on tokens, and of all other work."""
        parts, objects = self._parts, self.objects
        if branch == CONDITIONAL:
            conditional = parts.conditional + objects * whole, parts.conditional_tokens + objects * tokens
            self._parts = replace(parts, conditional=conditional[0], conditional_tokens=conditional[1])
        else:
            other = parts.unconditional + objects * whole, parts.unconditional_tokens + objects * tokens
            self._parts = replace(parts, unconditional=other[0], unconditional_tokens=other[1])

    def velocity(self, x: Velocity, time: float, evaluate: Evaluate) -> Velocity:
        """Velocity of the step at `time`, by the network or by a policy's forecast."""
        trajectory = self._trajectory
        assert trajectory is not None
        # By nearest time and not by counting calls: a pipeline that asks twice for one step stays in step.
        index = min(range(trajectory.count), key=lambda j: abs(trajectory.times[j] - time))
        self.step_index = index
        step = Step(index, trajectory.times, trajectory.guided)
        if trajectory.stage == SPARSE_STRUCTURE and batch_size(x) != self.objects:
            self._start_batch(trajectory, batch_size(x))
        counted = _Counted(evaluate, self, trajectory, step)
        source: Evaluate = counted
        if self._evaluation is not None:
            source = _Through(self._evaluation, step, counted)
        result = source(x).combined() if self._velocity is None else self._velocity.velocity(x, step, source)
        if counted.calls == 0:
            self.report.conditional_forecast += self.objects
            self.report.unconditional_forecast += self.objects * int(step.is_guided)
        return result

    def _start_batch(self, trajectory: Trajectory, objects: int) -> None:
        """The run turns out to sample several objects at once: each gets a policy of its own.

        Raises:
            OneAtATime: what is on cannot be kept apart by object; they have to be run one by one.
        """
        if self._evaluation is not None or self.block_policy is not None:
            raise OneAtATime("a technique that is on works on one object at a time")
        self.report.runs += objects - self.objects
        self.objects = objects
        made = [self._make_velocity(trajectory) for _ in range(objects)]
        policies = [policy for policy in made if policy is not None]
        self._velocity = BatchedPolicy(policies) if policies else None


class _Counted:
    """The real network, with its evaluations counted, each for every object of a batch."""

    def __init__(
        self, evaluate: Evaluate, session: StageSession, trajectory: Trajectory, step: Step
    ) -> None:
        self._evaluate, self._session, self._trajectory, self._step = evaluate, session, trajectory, step
        self.calls = 0

    def __call__(self, x: Velocity, tokens: Tensor | None = None, **options: Any) -> GuidedVelocity:
        state, report, objects = self._session.state, self._session.report, self._session.objects
        state.reused.clear()
        result = self._evaluate(x, tokens, **options)
        branches = [CONDITIONAL] if result.delta is None else [CONDITIONAL, UNCONDITIONAL]
        if options.get("layout_only"):
            report.layout_evaluations += objects * len(branches)
            tokens_of = {name: value.shape[1] for name, value in x.items()}
            for branch in branches:
                self._session.add_part(branch, 1.0 - tokens_of[SHAPE] / sum(tokens_of.values()), 0.0)
            return result
        self.calls += 1
        # A stack of blocks that was replaced by its last change counts as forecast; what ran around it is booked.
        for branch, share in state.reused.items():
            self._session.add_part(branch, share, 1.0)
        report.conditional_computed += objects * int(CONDITIONAL not in state.reused)
        report.conditional_forecast += objects * int(CONDITIONAL in state.reused)
        unconditional = UNCONDITIONAL in branches and UNCONDITIONAL not in state.reused
        report.unconditional_computed += objects * int(unconditional)
        report.unconditional_forecast += objects * int(self._step.is_guided and not unconditional)
        possible, computed = self._tokens(x, tokens, options.get("subset"))
        report.tokens_possible += objects * len(branches) * possible
        report.tokens_computed += objects * len(branches) * computed
        return result

    def _tokens(self, x: Velocity, tokens: Tensor | None, subset: Tensor | None) -> tuple[int, int]:
        """Transformer tokens of an evaluation: all there are, and those that ran."""
        cells = self._trajectory.cells
        if cells is None:
            possible = sum(value.shape[1] for value in x.values()) if SHAPE in x else 0
            return possible, possible if subset is None else possible - x[SHAPE].shape[1] + len(subset)
        possible = self._session.token_count
        if subset is not None:
            return possible, len(cells[subset].unique())
        return possible, possible if tokens is None else len(tokens)


class _Through:
    """The network as an evaluation policy lets it be seen; what is asked with options goes straight to it."""

    def __init__(self, policy: EvaluationPolicy, step: Step, evaluate: Evaluate) -> None:
        self._policy, self._step, self._evaluate = policy, step, evaluate

    def __call__(self, x: Velocity, tokens: Tensor | None = None, **options: Any) -> GuidedVelocity:
        if tokens is not None or options:
            return self._evaluate(x, tokens, **options)
        return self._policy.evaluate(x, self._step, self._evaluate)
