"""Multistep sampling on formulas whose integrals are known, and on the tiny pipeline."""

from __future__ import annotations

import math

import pytest
import torch
from technique_runs import sample

import fastsam3d
from fastsam3d.acceleration.presets import load_preset
from fastsam3d.diffusion.batched_policy import BatchedPolicy
from fastsam3d.diffusion.maths import bent_to_edge
from fastsam3d.diffusion.techniques.multistep import LatentMultistepConfig, Multistep, MultistepConfig
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory
from fastsam3d.errors import UserError
from fastsam3d.sam3d.models.flow_matching import time_grid

EDGES = (0.0, 0.5)


def config(**values):
    return MultistepConfig(enabled=True, **{"growth": 100.0, "last_order": 2, **values})


def times_of(steps, bend=3.0, hit=True):
    return tuple(time_grid(steps, bent_to_edge(steps, bend, 0.5) if hit else bend))


def end(settings, conditional, delta=None, **options):
    options = {"times": times_of(17), "edges": EDGES, **options}
    run = sample(lambda trajectory: Multistep(settings, trajectory), conditional, delta=delta, **options)
    return run.end["shape"].flatten()[0].item(), run


class Branches:
    """Counts the passes of a run whose conditional velocity and guidance are functions of time."""

    def __init__(self, settings, conditional, delta, times, guided=None, edges=EDGES):
        self.guided = tuple(guided) if guided is not None else tuple(t <= 0.5 for t in times[:-1])
        policy = Multistep(settings, Trajectory("sparse_structure", times, self.guided, edges=edges))
        self.whole, self.conditional_only, state = [], [], torch.zeros(1)
        for index in range(len(times) - 1):
            step = Step(index, times, self.guided)

            def evaluate(x, tokens=None, *, conditional_only=False, step=step):
                (self.conditional_only if conditional_only else self.whole).append(step.index)
                on = step.is_guided and not conditional_only
                return GuidedVelocity(
                    {"shape": torch.tensor([conditional(step.time)])},
                    {"shape": torch.tensor([delta(step.time)])} if on else None,
                )

            velocity = policy.velocity({"shape": state}, step, evaluate)["shape"]
            state = state + velocity * (step.next_time - step.time)
        self.end = state.item()


def test_a_line_is_integrated_exactly_but_for_the_first_step_which_is_corrected():
    # x' = 2 + 3 t from 1: 1 + 2 + 1.5.
    found, _ = end(config(), lambda x, t, i: 2.0 + 3.0 * t)
    assert found == pytest.approx(4.5, abs=1e-5)
    plain, _ = end(config(order=1, corrector=0), lambda x, t, i: 2.0 + 3.0 * t)
    assert abs(plain - 4.5) > 0.05


def test_fewer_evaluations_and_a_smaller_error_than_eulers_method():
    def decay(x, t, i):
        return -2.0 * x

    euler = sample(lambda trajectory: Multistep(config(order=1, corrector=0), trajectory), decay).end["shape"]
    found, run = end(config(), decay, times=times_of(13))
    assert len(run.computed) == 13
    assert abs(found - math.exp(-2)) < 0.3 * abs(euler.flatten()[0].item() - math.exp(-2))


@pytest.mark.parametrize("hit", [True, False])
@pytest.mark.parametrize("steps", [5, 8, 13, 17, 25])
def test_guidance_ends_exactly_on_its_edge(hit, steps):
    # Guidance of 4 until 0.5: 2, whatever the steps. Euler's method guides the step across the edge whole.
    found = Branches(config(), lambda t: 1.0, lambda t: 4.0, times_of(steps, hit=hit))
    assert found.end == pytest.approx(1.0 + 2.0, abs=1e-5)


def test_a_step_that_begins_on_the_edge_is_not_guided():
    times = (0.0, 0.25, 0.5, 0.75, 1.0)  # the pipeline's own test, t <= 0.5, counts the third step as guided
    found = Branches(config(), lambda t: 1.0, lambda t: 4.0, times)
    assert found.guided == (True, True, True, False)
    assert found.end == pytest.approx(3.0, abs=1e-6)


def test_held_guidance_is_corrected_by_the_trapezoidal_rule():
    # Guidance 1 - 2 t falls to 0 at the edge: its integral is 0.25, that of a hold over two steps is more.
    def falling(t):
        return 1.0 - 2.0 * t

    corrected = Branches(config(), lambda t: 0.0, falling, times_of(17))
    held = Branches(config(guidance_corrector=0), lambda t: 0.0, falling, times_of(17))
    assert corrected.end == pytest.approx(0.25, abs=1e-5)
    assert held.end > 0.27


def test_the_plan_of_unconditional_passes():
    every_second = Branches(config(), lambda t: 1.0, lambda t: 1.0, times_of(17))
    # Step 13 begins on the edge: guidance is computed there for the last stretch.
    assert [j for j in every_second.whole if every_second.guided[j]] == [0, 2, 4, 6, 8, 10, 12, 13]
    assert every_second.conditional_only == [1, 3, 5, 7, 9, 11]
    assert len(every_second.whole) + len(every_second.conditional_only) == 17
    early = Branches(config(guidance_first=4, guidance_every=3), lambda t: 1.0, lambda t: 1.0, times_of(17))
    assert [j for j in early.whole if early.guided[j]] == [0, 1, 2, 3, 6, 9, 12, 13]
    without = Branches(config(guidance_at_edge=False), lambda t: 1.0, lambda t: 1.0, times_of(17))
    assert 13 in without.conditional_only


def test_a_pipeline_without_conditional_passes_computes_both_at_every_step():
    times = times_of(17)
    guided = tuple(t <= 0.5 for t in times[:-1])
    offered = frozenset({"subset"})
    policy = Multistep(config(), Trajectory("sparse_structure", times, guided, edges=EDGES, offers=offered))
    options = []
    for index in range(17):

        def evaluate(x, tokens=None, **given):
            options.append(given)
            return GuidedVelocity({"shape": torch.ones(1)}, {"shape": torch.ones(1)})

        policy.velocity({"shape": torch.zeros(1)}, Step(index, times, guided), evaluate)
    assert options == [{}] * 17


def test_computed_steps_of_the_pipelines_own_grid():
    times = tuple(k / 10 for k in range(11))
    settings = config(own_grid=True, steps=0.4, rescale=1.0, ends=0.6, guidance_every=1, last_order=1)
    assert settings.grid(10, 1.0, EDGES) == (10, 1.0)
    found = Branches(settings, lambda t: 2.0 + 3.0 * t, lambda t: 0.0, times, guided=(False,) * 10, edges=())
    # Of 0.25, 0.5 and 0.75 with both ends shortened: 0.194, 0.5, 0.806.
    assert found.whole == [0, 2, 5, 8]
    # All stretches but the first are exact by the line, and the first is corrected; the last is held, from 4.4 at 0.8.
    assert found.end == pytest.approx(2.0 * 0.8 + 1.5 * 0.64 + 0.2 * 4.4, abs=1e-5)


def test_the_error_bound_adds_computed_steps_where_the_estimate_exceeds_it():
    # Velocity 2 + 3 t. An estimate needs two values, so the steps at 0 and 0.1 are computed. At 0.1 the slope is
    # 3 / 2.3 of the value: half of it times the square of 0.3 is 0.059, of 0.2 it is 0.026, so the step from 0.3 to
    # 0.4 is computed. At 0.3 it is 3 / 2.9: 0.4 is too far (0.083), 0.3 is not (0.047). At 0.6 it is 3 / 3.8, and 0.4
    # is too far (0.063).
    times = tuple(k / 10 for k in range(11))
    settings = config(own_grid=True, steps=0.1, error_bound=0.05, last_order=1)
    found = Branches(settings, lambda t: 2.0 + 3.0 * t, lambda t: 0.0, times, guided=(False,) * 10, edges=())
    assert found.whole == [0, 1, 3, 6, 9]
    # The line is exact until 0.9, since the first step is corrected; the last stretch is held, from 4.7.
    assert found.end == pytest.approx(2.0 * 0.9 + 1.5 * 0.81 + 0.1 * 4.7, abs=1e-5)
    without = Branches(config(own_grid=True, steps=0.1), lambda t: 2.0, lambda t: 0.0, times, (False,) * 10, ())
    assert without.whole == [0]
    straight = Branches(settings, lambda t: 2.0, lambda t: 0.0, times, guided=(False,) * 10, edges=())
    assert straight.whole == [0, 1]


def test_the_last_step_has_its_own_order_also_where_its_error_exceeds_the_bound():
    # Velocity 2 + 3 t. The line is exact until 0.3; the last step is held, from 2.9 over 0.7.
    times = (0.0, 0.1, 0.2, 0.3, 1.0)
    settings = config(own_grid=True, steps=1.0, error_bound=0.05, last_order=1)
    found = Branches(settings, lambda t: 2.0 + 3.0 * t, lambda t: 0.0, times, guided=(False,) * 4, edges=())
    assert found.whole == [0, 1, 2, 3]
    assert found.end == pytest.approx(2.0 * 0.3 + 1.5 * 0.09 + 0.7 * 2.9, abs=1e-5)


def test_guidance_that_begins_inside_the_run_is_computed_at_its_first_step():
    # Guided from the step at 0.4 until the edge at 0.85; of the steps at 0, 0.3 and 0.7 that are planned none is 0.4.
    times = tuple(k / 10 for k in range(11))
    guided = tuple(0.35 <= t <= 0.85 for t in times[:-1])
    settings = config(own_grid=True, steps=0.3, rescale=1.0, guidance_every=1)
    found = Branches(settings, lambda t: 1.0, lambda t: 4.0, times, guided=guided, edges=(0.35, 0.85))
    assert found.whole == [0, 3, 4, 7]
    assert found.end == pytest.approx(1.0 + 4.0 * (0.85 - 0.4), abs=1e-5)


def test_strong_guidance_that_falls_fast_stays_bounded():
    # Guidance of 7 that dies away within a few steps, and pulls the state back: a line through it overshoots.
    def conditional(x, t, i):
        return 1.0 - x

    def delta(x, t, i):
        return 7.0 * (1.0 - x) * math.exp(-6 * t)

    exact, _ = end(config(guidance_every=1), conditional, delta, times=times_of(400), start=0.0)
    found, _ = end(config(growth=1.0), conditional, delta, times=times_of(13), start=0.0)
    assert abs(found - exact) < 0.05


def test_unconditional_passes_that_another_technique_forecasts_are_not_learned_from():
    times, guided = times_of(5), (True,) * 5
    policy = Multistep(config(), Trajectory("sparse_structure", times, guided))
    step = Step(0, times, guided)
    forecast = GuidedVelocity({"shape": torch.ones(1)}, {"shape": torch.full((1,), 9.0)}, delta_is_forecast=True)
    policy.velocity({"shape": torch.zeros(1)}, step, lambda x, tokens=None, **options: forecast)
    assert len(policy.guidance) == 0


def test_the_distilled_mode_is_left_alone():
    times, guided = (0.0, 0.25, 0.5, 0.75, 1.0), (False,) * 4
    _, run = end(config(), lambda x, t, i: t, times=times, guided=guided, shortcut=True)
    assert run.values("shape") == pytest.approx([0.0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize(
    ("share", "own", "taken"), [(0.68, 25, 17), (0.68, 12, 8), (0.52, 25, 13), (0.01, 25, 1), (1, 4, 4)]
)
def test_steps_are_a_share_of_the_pipelines_own(share, own, taken):
    steps, bend = MultistepConfig(steps=share).grid(own, 3.0, EDGES)
    assert steps == taken
    assert steps == 1 or min(abs(t - 0.5) for t in time_grid(steps, bend)) < 1e-6


def test_the_grid_is_the_pipelines_own_where_nothing_is_asked():
    assert MultistepConfig(steps=1.0, hit_edge=False).grid(25, 3.0, EDGES) == (25, 3.0)
    assert LatentMultistepConfig(steps=0.28, rescale=4.0, hit_edge=False).grid(25, 1.0, EDGES) == (7, 4.0)
    assert MultistepConfig(rescale=2.0).grid(25, 3.0, ()) == (17, 2.0)  # without guidance there is no edge


def test_what_cannot_be_combined_is_refused():
    for other in ("step_caching", "easycache", "few_step_shortcut", "first_block_cache", "exact_layout"):
        with pytest.raises(UserError, match="multistep"):
            load_preset("off", {"multistep.enabled": True, f"{other}.enabled": True})
    load_preset("exact", {"multistep.enabled": True, "latent_multistep.enabled": True})
    load_preset("exact", {"multistep.enabled": True, "guidance_reuse.enabled": True})
    load_preset("exact", {"multistep.enabled": True, "fewer_steps.enabled": True, "adaptive_caching.enabled": True})


BOTH = {"multistep": {"enabled": True}, "latent_multistep": {"enabled": True, "rescale": 4.0, "guidance_every": 3}}


def test_counts_of_a_run_of_the_tiny_pipeline(pipeline, picture):
    own = {stage: pipeline.models[name].inference_steps for stage, name in STAGES.items()}
    grids = {stage: (pipeline.models[name].rescale_t, own[stage]) for stage, name in STAGES.items()}
    with fastsam3d.accelerate(pipeline, {"name": "mine", **BOTH}) as acceleration:
        pipeline.run(*picture, seed=1)
        report = acceleration.report()
    for stage, count in own.items():
        assert report.stages[stage].conditional_computed == max(1, round(0.68 * count))
        assert report.stages[stage].conditional_forecast == 0
        guided = report.stages[stage]
        assert guided.unconditional_computed >= 1
    # The pipeline has its own grid again.
    for stage, name in STAGES.items():
        assert (pipeline.models[name].rescale_t, pipeline.models[name].inference_steps) == grids[stage]


STAGES = {"sparse_structure": "ss_generator", "structured_latent": "slat_generator"}


def test_all_steps_of_order_one_are_the_pipelines_own(pipeline, picture):
    # The plain twin: Euler's method on the pipeline's own grid, guidance at every step and none across the edge.
    euler = {"steps": 1.0, "hit_edge": False, "order": 1, "corrector": 0, "guidance_every": 1, "guidance_corrector": 0}
    for name in STAGES.values():
        pipeline.models[name].reverse_fn.interval = (0.0, 1000.0)  # no edge to treat otherwise
    plain = pipeline.run(*picture, seed=1)
    settings = {"enabled": True, **euler}
    with fastsam3d.accelerate(pipeline, {"name": "mine", "multistep": settings, "latent_multistep": settings}):
        found = pipeline.run(*picture, seed=1)
    for name, value in plain.structure.latents.items():
        assert torch.allclose(found.structure.latents[name], value, atol=1e-5)
    assert torch.allclose(found.feats, plain.feats, atol=1e-4)


def test_objects_of_a_batch_take_their_own_rows():
    times, guided = times_of(7), tuple(t <= 0.5 for t in times_of(7)[:-1])

    def velocities(batch):
        trajectory = Trajectory("sparse_structure", times, guided, edges=EDGES)
        policies = [Multistep(config(guidance_every=2), trajectory) for _ in range(batch)]
        policy = policies[0] if batch == 1 else BatchedPolicy(policies)
        state, calls = torch.arange(1.0, batch + 1).reshape(batch, 1), 0
        for index in range(len(guided)):
            step = Step(index, times, guided)

            def evaluate(x, tokens=None, *, conditional_only=False, step=step):
                nonlocal calls
                calls += 1
                delta = {"shape": 0.5 * x["shape"]} if step.is_guided and not conditional_only else None
                return GuidedVelocity({"shape": -x["shape"]}, delta)

            state = state + (step.next_time - step.time) * policy.velocity({"shape": state}, step, evaluate)["shape"]
        return state, calls

    alone, _ = velocities(1)
    together, calls = velocities(3)
    assert torch.allclose(together, alone * torch.tensor([[1.0], [2.0], [3.0]]), atol=1e-6)
    assert calls == 7
