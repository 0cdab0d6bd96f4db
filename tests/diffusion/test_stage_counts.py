"""What a session counts of evaluations that ran in part only."""

from __future__ import annotations

import torch

from fastsam3d.diffusion.report import StageReport
from fastsam3d.diffusion.sites import EvaluationState
from fastsam3d.diffusion.stage_runner import StageRunner
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Trajectory

X = {"shape": torch.zeros(1, 6, 2), "scale": torch.zeros(1, 2, 3)}


def session_of(policy, guided):
    booked = []
    session = StageRunner(
        EvaluationState(),
        StageReport(),
        lambda _: policy,
        lambda _: None,
        on_end=lambda trajectory, own, computed: booked.append(computed),
    )
    count = len(guided)
    session.start(Trajectory("sparse_structure", tuple(k / count for k in range(count + 1)), guided))
    return session, booked


def test_a_reused_stack_is_forecast_and_what_ran_of_it_is_booked():
    session, booked = session_of(None, (True, True, False))

    def evaluate(x, tokens=None, step=0):
        guided = step < 2
        if step > 0:
            session.state.reused["conditional"] = 0.25
        return GuidedVelocity(dict(x), dict(x) if guided else None)

    for step in range(3):
        session.velocity(X, step / 3, lambda x, tokens=None, step=step: evaluate(x, tokens, step))
    session.finish()
    report = session.report
    assert (report.conditional_computed, report.conditional_forecast) == (1, 2)
    assert (report.unconditional_computed, report.unconditional_forecast) == (2, 0)
    passes = booked[0]
    # Three conditional passes went through the network's ends; one through all blocks, two through a quarter.
    assert (passes.whole.conditional, passes.whole.conditional_tokens) == (3, 1.5)
    assert (passes.whole.unconditional, passes.whole.unconditional_tokens) == (2, 2)
    # Eight tokens in each pass; a quarter of them where a quarter of the blocks ran.
    assert (report.tokens_computed, report.tokens_possible) == (8 * 3.5, 8 * 5)


def test_the_layout_alone_is_booked_by_its_tokens():
    class LayoutOnly:
        def velocity(self, x, step, evaluate):
            whole = step.index == 0
            guided = evaluate(x) if whole else evaluate(x, layout_only=True)
            return {**x, **guided.combined()}

    session, booked = session_of(LayoutOnly(), (True, True, False))
    for step in range(3):

        def evaluate(x, tokens=None, *, layout_only=False, step=step):
            part = {"scale": x["scale"]} if layout_only else dict(x)
            return GuidedVelocity(part, part if step < 2 else None)

        session.velocity(X, step / 3, evaluate)
    session.finish()
    report = session.report
    assert (report.evaluations, report.forecast, report.layout_evaluations) == (2, 3, 3)
    passes = booked[0]
    assert (passes.whole.conditional, passes.whole.unconditional) == (1, 1)
    assert (passes.layout.conditional, passes.layout.unconditional, passes.layout.shared) == (2, 1, 1)
    assert report.tokens_computed == report.tokens_possible == 2 * 8 + 3 * 2  # the layout has two of eight tokens


def test_a_subset_is_counted_by_its_tokens():
    class Half:
        def velocity(self, x, step, evaluate):
            return evaluate(x, subset=torch.tensor([0, 2, 4])).combined()

    session, booked = session_of(Half(), (False,))
    session.velocity(X, 0.0, lambda x, tokens=None, *, subset: GuidedVelocity(dict(x)))
    session.finish()
    assert session.report.tokens_kept == 5 / 8  # three shape tokens and both of the layout
    assert booked[0].whole.conditional == 0
    assert (booked[0].subsets.conditional, booked[0].subsets.conditional_tokens) == (1, 5 / 8)
    assert [(subset.tolist(), alone.conditional) for subset, alone in booked[0].alone] == [([0, 2, 4], 1)]


def test_fewer_steps_are_never_more_than_the_pipelines_own():
    session = StageRunner(EvaluationState(), StageReport(), lambda _: None, lambda _: None, steps=2)
    times = lambda count: [k / count for k in range(count + 1)]  # noqa: E731
    # 2 steps meet the edge at 1/2, 3 the one at 1/3, 4 the first again: 5 would be free of both.
    assert session.steps(9, times, (1 / 3, 1 / 2)) == 5
    assert session.steps(3, times, (1 / 3, 1 / 2)) == 3


def test_a_trajectory_is_shared_by_copies():
    import copy

    class Heavy:
        def __deepcopy__(self, memo):
            raise AssertionError("the pipeline was copied")

        def decode(self, latents):
            return latents

    trajectory = Trajectory("sparse_structure", (0.0, 1.0), (False,), occupancy=Heavy().decode)
    assert copy.deepcopy(trajectory) is trajectory
