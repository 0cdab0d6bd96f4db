"""Runs one stage under acceleration: keeps the state of a run, and counts what is computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from fastsam3d.diffusion.batched_policy import BatchedPolicy, batch_size
from fastsam3d.diffusion.evaluations.whole import Replay
from fastsam3d.diffusion.maths.schedule import avoid_edge
from fastsam3d.diffusion.passes import Passes, RunPasses
from fastsam3d.diffusion.report import StageReport
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, EvaluationState
from fastsam3d.diffusion.vocabulary import (
    CAPABILITIES,
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
    count_of,
)
from fastsam3d.errors import OneAtATime, UserError


class Keeper(Protocol):
    """Something that keeps values for the length of a run."""

    def start(self) -> None:
        """Begins a run with nothing kept."""

    def finish(self) -> None:
        """Releases the kept values."""


class StageRunner:
    """Joins policies, exact savings and counting for the runs of one stage.

    Args:
        state: shared with what is attached inside the stage's network.
        report: where counts go.
        velocity_policy: makes the policy that decides when the network runs, or None.
        evaluation_policy: makes the policy that decides how it runs, or None.
        block_policy: makes the policy that decides when a stack of blocks is replaced by its last change, or None.
        steps: step count of the control technique, or below 1 its share; None leaves the pipeline's own.
        shortcut: the stage runs in its distilled few-step mode, without guidance.
        grid: of a technique with a time grid of its own: (steps, bend, guidance edges) -> steps and bend; else None.
        offers: capabilities of the pipeline in this stage.
        on_end: called with (trajectory, the pipeline's own passes, passes that ran) after every complete run.
    """

    def __init__(
        self,
        state: EvaluationState,
        report: StageReport,
        velocity_policy: Callable[[Trajectory], VelocityPolicy | None],
        evaluation_policy: Callable[[Trajectory], EvaluationPolicy | None],
        block_policy: Callable[[Trajectory], BlockPolicy | None] = lambda trajectory: None,
        steps: float | None = None,
        shortcut: bool = False,
        grid: Callable[[int, float, Sequence[float]], tuple[int, float]] | None = None,
        offers: Collection[str] = CAPABILITIES,
        on_end: Callable[[Trajectory, Passes, RunPasses], None] = lambda trajectory, own, computed: None,
    ) -> None:
        self.state = state
        self.report = report
        self.keepers: list[Keeper] = []
        self.replay: Replay | None = None
        self._make_velocity, self._make_evaluation = velocity_policy, evaluation_policy
        self._make_block_policy = block_policy
        self._steps, self.shortcut, self._grid = steps, shortcut, grid
        self._offers = frozenset(offers)
        self._edges: tuple[float, ...] = ()
        self._on_end = on_end
        self._own: Passes | None = None
        self._counts_before = StageReport()
        self.passes = RunPasses()  # of this run
        self.block_policy: BlockPolicy | None = None
        self.step_index = 0
        self.has_evaluated = False  # or forecast a step, in any run
        self.steps_ignored = False  # in the latest run
        self._asked: int | None = None
        self._trajectory: Trajectory | None = None
        self._velocity: VelocityPolicy | None = None
        self._evaluation: EvaluationPolicy | None = None
        self.token_count = 0
        self.objects = 1

    def steps(self, configured: int, times: Callable[[int], Sequence[float]], edges: Sequence[float]) -> int:
        """Step count of the run that is about to start; the pipeline's own unless fewer are asked for.

        Raises:
            UserError: a run of this stage is in progress.
        """
        # A technique's grid needs the bend, which this pipeline keeps: only its number of steps is taken.
        return self.grid(configured, 1.0, times, edges)[0]

    def grid(
        self, configured: int, rescale: float, times: Callable[[int], Sequence[float]], edges: Sequence[float]
    ) -> tuple[int, float]:
        """Step count and bend of the time grid of the run that is about to start; the pipeline's own by default.

        Raises:
            UserError: a run of this stage is in progress.
        """
        self._refuse_nested()
        self._own, self._edges = None, tuple(edges)
        count, bend = configured, rescale
        if self._grid is not None:
            # No number of steps is avoided here: such a technique integrates guidance exactly up to its edge.
            most = configured if self._steps is None else min(count_of(self._steps, configured), configured)
            count, bend = self._grid(configured, rescale, edges)
            count = min(count, most)
        elif self._steps is not None and ((asked := count_of(self._steps, configured)) < configured or self.shortcut):
            count = asked if self.shortcut else min(configured, avoid_edge(asked, times, edges))
        if (count, bend) != (configured, rescale):
            low, high = (min(edges), max(edges)) if edges else (1.0, 0.0)
            self._own = Passes.full(configured, sum(low <= t <= high for t in times(configured)[:-1]))
        self._asked = count
        return count, bend

    def start(self, trajectory: Trajectory) -> None:
        """Begins a run: fresh state for every policy.

        Raises:
            UserError: a run of this stage is in progress, into which this one would be nested.
        """
        self._refuse_nested()
        asked = self._asked
        self.finish()
        trajectory = replace(trajectory, edges=self._edges or trajectory.edges, offers=self._offers)
        if trajectory.occupancy is not None:
            trajectory = replace(trajectory, occupancy=partial(self._decoded, trajectory.occupancy))
        self._trajectory = trajectory
        if self._steps is not None or self._grid is not None:
            if asked is None:
                steps = trajectory.count
                own = None if self._steps is None else count_of(self._steps, steps)
                asked = own if self._grid is None else self._grid(steps, 1.0, ())[0]
            self.steps_ignored = asked is not None and trajectory.count > asked
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
        self.passes = RunPasses()

    def finish(self) -> None:
        """Ends a run, also one that broke off: nothing of it is kept."""
        if self._trajectory is not None and self._is_complete(self._trajectory):
            own = self._own or Passes.full(self._trajectory.count, sum(self._trajectory.guided))
            self._on_end(self._trajectory, own, self.passes)
        self.state.reset()
        for keeper in self.keepers:
            keeper.finish()
        self._trajectory = self._velocity = self._evaluation = self.block_policy = None
        self._asked = None

    def _refuse_nested(self) -> None:
        if self.state.running:
            raise UserError(
                "a run was begun in the middle of a run of the same pipeline, as in a progress callback, and what is "
                "attached keeps values of one run at a time: begin it after the other, or on a copy.deepcopy."
            )

    def _decoded(self, occupancy: Callable[..., Tensor], latents: Velocity) -> Tensor:
        self.passes.decodings += 1
        return occupancy(latents)

    def _is_complete(self, trajectory: Trajectory) -> bool:
        now, before = self.report, self._counts_before
        done = now.conditional_computed + now.conditional_forecast
        done -= before.conditional_computed + before.conditional_forecast
        return done >= self.objects * trajectory.count

    def velocity(self, x: Velocity, time: float, evaluate: Evaluate) -> Velocity:
        """Velocity of the step at `time`, by the network or by a policy's forecast."""
        trajectory = self._trajectory
        assert trajectory is not None
        # By nearest time and not by counting calls: a pipeline that asks twice for one step stays in step.
        self.has_evaluated = True
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
        """Gives each object a policy of its own, where the run turns out to sample several objects at once.

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
    """Evaluates the real network, and counts each evaluation once for every object of a batch."""

    def __init__(self, evaluate: Evaluate, runner: StageRunner, trajectory: Trajectory, step: Step) -> None:
        self._evaluate, self._session, self._trajectory, self._step = evaluate, runner, trajectory, step
        self.calls = 0

    def __call__(self, x: Velocity, tokens: Tensor | None = None, **options: Any) -> GuidedVelocity:
        state, report, objects = self._session.state, self._session.report, self._session.objects
        state.reused.clear()
        state.computed_tokens, state.guided = None, self._step.is_guided and not options.get("conditional_only")
        result = self._evaluate(x, tokens, **options)
        branches = [CONDITIONAL] if result.delta is None else [CONDITIONAL, UNCONDITIONAL]
        if options.get("layout_only"):
            report.layout_evaluations += objects * len(branches)
            layout = sum(value.shape[1] for name, value in x.items() if name != SHAPE)
            report.tokens_possible += objects * len(branches) * layout
            report.tokens_computed += objects * len(branches) * layout
            self._session.passes.layout += Passes.evaluation(branches, {}) * objects
            return result
        self.calls += 1
        # A stack of blocks that was replaced by its last change counts as forecast; what ran around it is booked.
        report.conditional_computed += objects * int(CONDITIONAL not in state.reused)
        report.conditional_forecast += objects * int(CONDITIONAL in state.reused)
        unconditional = UNCONDITIONAL in branches and UNCONDITIONAL not in state.reused
        report.unconditional_computed += objects * int(unconditional)
        # Guidance that rests on one branch alone, as some samplers have it at strength 0 or 1, leaves nothing out.
        left_out = UNCONDITIONAL in state.reused or bool(options.get("conditional_only"))
        report.unconditional_forecast += objects * int(self._step.is_guided and left_out)
        possible, computed = self._tokens(x, options.get("subset"))
        report.tokens_possible += objects * len(branches) * possible
        report.tokens_computed += objects * sum(round(computed * state.reused.get(name, 1.0)) for name in branches)
        self._book(branches, computed / possible if possible else 1.0, options.get("subset"))
        return result

    def _book(self, branches: Sequence[str], share: float, subset: Tensor | None) -> None:
        """Books the passes of an evaluation over a share of the tokens."""
        passes, blocks, objects = self._session.passes, self._session.state.reused, self._session.objects
        if subset is None:
            passes.whole += Passes.evaluation(branches, blocks, share) * objects
        else:
            passes.alone.append((subset, Passes.evaluation(branches, blocks) * objects))
            passes.subsets += Passes.evaluation(branches, blocks, share) * objects

    def _tokens(self, x: Velocity, subset: Tensor | None) -> tuple[int, int]:
        """Transformer tokens of an evaluation: all there are, and those that ran."""
        cells = self._trajectory.cells
        if cells is None:
            possible = sum(value.shape[1] for value in x.values()) if SHAPE in x else 0
            return possible, possible if subset is None else possible - x[SHAPE].shape[1] + len(subset)
        possible = self._session.token_count
        if subset is not None:
            return possible, len(cells[subset].unique())
        # By what the blocks computed, not by what was asked for: where nothing is kept yet, they compute all.
        computed = self._session.state.computed_tokens
        return possible, possible if computed is None else computed


class _Through:
    """Evaluates the network through an evaluation policy; a call with options goes straight to the network."""

    def __init__(self, policy: EvaluationPolicy, step: Step, evaluate: Evaluate) -> None:
        self._policy, self._step, self._evaluate = policy, step, evaluate

    def __call__(self, x: Velocity, tokens: Tensor | None = None, **options: Any) -> GuidedVelocity:
        if tokens is not None or options:
            return self._evaluate(x, tokens, **options)
        return self._policy.evaluate(x, self._step, self._evaluate)
