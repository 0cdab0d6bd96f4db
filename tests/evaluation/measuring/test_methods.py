from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from evaluation_stand_in import Backbone, StandIn

from fastsam3d.basics.config_files import preset_names
from fastsam3d.diffusion.report import Report, StageReport
from fastsam3d.errors import UserError
from fastsam3d.evaluation.measuring.counters import counted_evaluations, counted_work, synchronise
from fastsam3d.evaluation.measuring.methods import (
    Method,
    evaluations_of_steps,
    guided,
    matched_steps,
    resolve_methods,
)
from fastsam3d.sam3d.models.flow_matching import ClassifierFreeGuidance, FlowMatching


@pytest.mark.parametrize("name", ["limit", "other_seed"])
def test_a_preset_file_cannot_have_the_name_of_a_reference_row(tmp_path, name):
    (tmp_path / f"{name}.yaml").write_text("multistep: {enabled: true}\n")
    with pytest.raises(UserError, match=f"a row of the benchmark itself is called '{name}'"):
        resolve_methods([str(tmp_path / f"{name}.yaml")])


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
    method = Method("fewer_steps@fast", "exact", matched_to="fast").matched(
        StandIn(), {"nfe_ss": 18, "nfe_slat": 10}
    )
    # Second stage without rescale: 7 steps at k/7, of which 0 to 3 are guided, make 11 evaluations.
    assert method.overrides["fewer_steps"] == {
        "enabled": True, "sparse_structure_steps": 10, "structured_latent_steps": 7,
    }  # fmt: skip
    assert (method.name, method.preset) == ("fewer_steps@fast", "exact")


def names(*given):
    return [method.name for method in resolve_methods(given)]


def test_off_comes_first_and_unknown_names_are_refused():
    assert names("balanced", "paper")[0] == "off"
    assert names("paper", "off", "paper") == ["off", "paper"]
    with pytest.raises(UserError, match=r"unknown method 'fastest'.*balanced"):
        resolve_methods(("fastest",))


def test_all_is_every_preset_and_two_controls():
    methods = {method.name: method for method in resolve_methods(("all",))}
    assert list(methods)[:2] == ["off", "exact"]
    assert set(preset_names()) <= set(methods)
    assert [methods[name].matched_to for name in list(methods)[-2:]] == ["balanced", "fast"]
    assert methods["paper"].optional
    assert not methods["off"].optional
    assert not {m.name: m for m in resolve_methods(("all", "paper"))}["paper"].optional


def test_a_control_brings_what_it_is_matched_to():
    assert names("fewer_steps") == ["off", "balanced", "fewer_steps"]
    assert names("fewer_steps@paper", "fast") == ["off", "paper", "fewer_steps@paper", "fast"]
    with pytest.raises(UserError, match="unknown method 'fastest'"):
        resolve_methods(("fewer_steps@fastest",))
    with pytest.raises(UserError, match="control of a control"):
        resolve_methods(("fewer_steps@fewer_steps",))


def test_a_preset_file_is_a_method_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("step_caching: {enabled: true, stride: 2}\n")
    methods = resolve_methods((str(path), "fewer_steps@mine"))
    assert [(m.name, m.matched_to) for m in methods[1:]] == [("mine", None), ("fewer_steps@mine", "mine")]
    assert methods[1].settings()["step_caching"]["stride"] == 2
    path.write_text("step_caching: {strides: 2}\n")
    with pytest.raises(UserError, match="strides"):
        resolve_methods((str(path),))
    (tmp_path / "paper.yaml").write_text("step_caching: true\n")
    with pytest.raises(UserError, match="two methods are called 'paper'"):
        resolve_methods(("paper", str(tmp_path / "paper.yaml")))


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


def test_a_cuda_device_is_waited_for_and_a_cpu_is_not(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    synchronise("cuda:1")
    synchronise("cpu")
    assert waited == ["cuda:1"]


def test_work_of_an_untouched_run_is_watched_and_of_an_accelerated_one_reported():
    coords = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1], [0, 2, 0, 0]])
    result = SimpleNamespace(structure=SimpleNamespace(coords=coords))
    counts = {"nfe_ss": 25, "nfe_slat": 10}
    work = counted_work(StandIn(), result, counts, None)
    assert (work["nfe_ss"], work["nfe_slat"], work["tokens_slat"]) == (25, 10, 20)  # two cells of 2^3 voxels
    assert math.isnan(work["tokens_ss"])
    assert math.isnan(work["tflop"])
    # Joint passes: 10 calls that stood for both branches, of which the report knows.
    stage = StageReport(runs=1, conditional_computed=10, unconditional_computed=8, tokens_computed=90)
    report = Report("x", (), {"sparse_structure": StageReport(), "structured_latent": stage})
    work = counted_work(StandIn(), result, counts, SimpleNamespace(report=lambda: report))
    assert (work["nfe_ss"], work["nfe_slat"], work["tokens_slat"]) == (25, 18, 90)
