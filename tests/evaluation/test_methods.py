from __future__ import annotations

import pytest
import torch
from evaluation_stand_in import Backbone, StandIn

from fastsam3d.errors import UserError
from fastsam3d.evaluation.methods import (
    counted_evaluations,
    evaluations_of_steps,
    fewer_steps_method,
    guided,
    matched_steps,
    resolve_methods,
)
from fastsam3d.models.flow_matching import ClassifierFreeGuidance, FlowMatching


@pytest.mark.parametrize(
    ("steps", "evaluations"),
    [(25, 44), (17, 30), (12, 22), (10, 18), (9, 16), (8, 15), (5, 9), (3, 6), (1, 2)],
)
def test_evaluations_of_plain_sampling(steps, evaluations):
    # Rescale 3, guidance up to and including t = 0.5.
    generator = FlowMatching(ClassifierFreeGuidance(Backbone(), 2.0), 25, 3.0)
    assert evaluations_of_steps(generator, steps) == evaluations
    generator.inference_steps = steps
    pipeline = StandIn()
    pipeline.models["ss_generator"] = generator
    with counted_evaluations(pipeline) as counts:
        generator.sample(torch.zeros(1, 1), torch.zeros(1, 1, 1))
    assert counts == {"nfe_ss": evaluations, "nfe_slat": 0}
    assert not generator.reverse_fn.backbone._forward_pre_hooks


def test_the_control_has_at_least_as_many_evaluations_and_no_step_on_the_guidance_edge():
    generator = FlowMatching(ClassifierFreeGuidance(Backbone(), 2.0), 25, 3.0)
    assert matched_steps(generator, 18) == 10
    assert matched_steps(generator, 17) == 10
    assert matched_steps(generator, 22) == 13  # 12 would do, but puts a step on t = 0.5
    assert matched_steps(generator, 44) == 25
    assert matched_steps(generator, 99) == 25


def test_control_settings_for_both_stages():
    method = fewer_steps_method(StandIn(), {"nfe_ss": 18, "nfe_slat": 10})
    # Second stage without rescale: 7 steps at k/7, of which 0 to 3 are guided, make 11 evaluations.
    assert method.overrides["fewer_steps"] == {
        "enabled": True, "sparse_structure_steps": 10, "structured_latent_steps": 7,
    }  # fmt: skip
    assert (method.name, method.preset) == ("fewer_steps", "exact")


def test_off_comes_first_and_unknown_names_are_refused():
    assert resolve_methods(("balanced", "paper"))[0] == "off"
    assert resolve_methods(("paper", "off", "paper")) == ["off", "paper"]
    with pytest.raises(UserError, match=r"unknown method 'fastest'.*balanced"):
        resolve_methods(("fastest",))


def test_guidance_is_set_and_given_back_also_after_an_error():
    pipeline = StandIn()
    pipeline.models["ss_generator"].reverse_fn.strength = {"shape": 2.0, "scale": 1.0}

    def fail():
        with guided(pipeline, 7.0):
            assert pipeline.models["ss_generator"].reverse_fn.strength == {"shape": 7.0, "scale": 1.0}
            assert pipeline.models["slat_generator"].reverse_fn.strength == 7.0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert pipeline.models["ss_generator"].reverse_fn.strength == {"shape": 2.0, "scale": 1.0}
    assert pipeline.models["slat_generator"].reverse_fn.strength == 1.0
