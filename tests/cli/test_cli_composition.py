"""Flags and key=value words to one configuration."""

from __future__ import annotations

import pytest
from hydra.core.global_hydra import GlobalHydra

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.cli.composition import changes, compose, ineffective
from fastsam3d.cli.flags import MODULES, PARAMETERS, parse
from fastsam3d.cli.settings import request_of


def composed(*words):
    return compose(parse(words, "infer.py"))


def enabled(acceleration):
    return {name for name in acceleration.enabled if not name.startswith("exact.")}


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        ([], "off"),
        (["--enable_acceleration"], "balanced"),
        (["--enable_acceleration", "acceleration=paper"], "paper"),
        (["acceleration=fast"], "fast"),
        (["acceleration=paper", "acceleration=exact"], "exact"),
    ],
)
def test_which_preset(words, preset):
    _, acceleration = composed(*words)
    assert acceleration == load_preset(preset)


def test_module_flags_take_the_values_of_paper_and_switch_everything_else_off():
    _, acceleration = composed("--enable_slat_carving")
    assert enabled(acceleration) == {"adaptive_caching", "token_carving"}
    assert acceleration["token_carving"] == load_preset("paper")["token_carving"]
    _, acceleration = composed("--enable_ss_cache", "--enable_mesh_aggregation", "acceleration=balanced")
    assert enabled(acceleration) == {"step_caching", "token_aggregation"}
    assert acceleration["step_caching"].warmup == load_preset("balanced")["step_caching"].warmup


@pytest.mark.parametrize("flag", PARAMETERS)
def test_every_parameter_flag_sets_its_keys(flag):
    value = {"ss_order": 2, "mesh_spectral_threshold_low": 0.25, "mesh_spectral_threshold_high": 0.75}.get(flag)
    value = value or (0.25 if "beta" in flag or "thresh" in flag or "ratio" in flag else 5)
    values, _ = composed("--enable_acceleration", f"--{flag}", str(value))
    for key in PARAMETERS[flag]:
        _, group, name = key.split(".")
        assert values["acceleration"][group][name] == value


def test_carving_ratio_is_the_share_that_is_skipped():
    _, acceleration = composed("--enable_slat_carving", "--slat_carving_ratio", "0.15")
    assert acceleration["token_carving"].carved_fraction == 0.15


def test_words_win_over_flags_and_the_last_word_over_earlier_ones():
    _, acceleration = composed(
        "acceleration.step_caching.stride=3",
        "--ss_cache_stride",
        "2",
        "acceleration.step_caching.stride=1",
        "--enable_ss_cache",
    )
    assert acceleration["step_caching"].stride == 1


def test_key_that_the_preset_does_not_name():
    _, acceleration = composed("acceleration=balanced", "acceleration.token_carving.streak_limit=7")
    assert acceleration["token_carving"].streak_limit == 7


def test_preset_file_and_changes_of_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("step_caching: {enabled: true, stride: 2}\n")
    _, acceleration = composed(f"acceleration={path}", "acceleration.step_caching.warmup=5")
    assert (acceleration.name, acceleration["step_caching"].stride) == ("mine", 2)
    assert acceleration["step_caching"].warmup == 5


def test_paths_may_hold_signs_of_hydras_grammar(tmp_path):
    path = "a folder/it's (1), 50% ${x}=y.png"
    values, _ = composed(f"image_path={path}", "output_dir='quoted'")
    assert values["image_path"] == path
    assert values["output_dir"] == "quoted"
    values, _ = composed("--image_path", path)
    assert values["image_path"] == path


def test_no_trace_of_hydra(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    composed("acceleration=paper")
    assert not GlobalHydra.instance().is_initialized()
    assert list(tmp_path.iterdir()) == []


def test_settings_of_a_technique_that_is_off_are_named():
    arguments = parse(["--slat_carving_ratio", "0.2", "--enable_acceleration"], "infer.py")
    _, acceleration = compose(arguments)
    (warning,) = ineffective(arguments, acceleration)
    assert "--slat_carving_ratio changes nothing" in warning
    assert "--enable_slat_carving" in warning
    arguments = parse(["--slat_carving_ratio", "0.2", "--enable_slat_carving"], "infer.py")
    assert ineffective(arguments, compose(arguments)[1]) == []
    arguments = parse(["acceleration=off", "acceleration.step_caching.enabled=false"], "infer.py")
    assert ineffective(arguments, compose(arguments)[1]) == []


def test_changes_are_told_shortly():
    arguments = parse(["--ss_warmup", "5", "acceleration.step_caching.stride=2", "seed=3"], "infer.py")
    assert changes(arguments) == ["step_caching.warmup=5", "step_caching.stride=2"]


def test_sampler_of_the_model_can_be_changed():
    settings = request_of(parse(["model.ss_sampler.inference_steps=12", "model=mini"], "infer.py"))
    assert settings.samplers["ss_sampler"]["inference_steps"] == 12
    assert settings.samplers["slat_sampler"]["inference_steps"] == 25


def test_blanks_around_the_sign_change_nothing():
    """With them, the value of the checkpoint folder would replace a sampler's setting that the user gave."""
    spaced = request_of(parse(["model.ss_sampler.inference_steps = 12", " seed= 3"], "infer.py"))
    plain = request_of(parse(["model.ss_sampler.inference_steps=12", "seed=3"], "infer.py"))
    assert spaced == plain and "model.ss_sampler.inference_steps" in spaced.given


def test_every_module_flag_names_techniques_that_exist():
    known = load_preset("off").settings
    assert {group for groups in MODULES.values() for group in groups} <= set(known)
