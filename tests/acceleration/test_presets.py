from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from omegaconf import OmegaConf

from fastsam3d.acceleration.presets import KINDS, load_preset, preset_info
from fastsam3d.basics.config_files import config_directory, preset_names
from fastsam3d.diffusion.registry import REGISTRY
from fastsam3d.errors import UserError


def test_presets_at_hand():
    assert {"off", "exact", "paper", "accurate", "balanced", "fast"} <= set(preset_names())


def preset_files():
    return sorted((config_directory() / "acceleration").rglob("*.yaml"))


@pytest.mark.parametrize("path", preset_files(), ids=lambda path: path.stem)
def test_every_preset_loads_names_itself_and_says_how_to_use_it(path):
    config = load_preset(path)
    assert config.name == path.stem
    assert load_preset(path.stem).to_dict() == config.to_dict()
    head = path.read_text(encoding="utf-8").split("\nname:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"python infer.py acceleration={path.stem}" in head


@pytest.mark.parametrize("path", preset_files(), ids=lambda path: path.stem)
def test_presets_say_what_they_are_and_name_only_what_is_on(path):
    info = preset_info(path.stem)
    assert info.kind in KINDS
    assert len(info.description) > 20
    values = OmegaConf.to_container(OmegaConf.load(path))
    for group in set(values) - {"name", "kind", "description", "exact"}:
        assert REGISTRY[group].acts_on(load_preset(path.stem)[group]), f"{group} is named and off"


@pytest.mark.parametrize("name", ["off", "exact", "paper", "accurate", "balanced", "fast"])
def test_our_presets_state_all_values_of_what_is_on(name):
    values = OmegaConf.to_container(OmegaConf.load(config_directory() / "acceleration" / f"{name}.yaml"))
    for group in set(values) - {"name", "kind", "description", "exact"}:
        assert set(values[group]) == {field.name for field in dataclasses.fields(REGISTRY[group].config)}


def test_one_word_switches_all_exact_savings():
    savings = dataclasses.fields(REGISTRY["exact"].config)
    switches = [load_preset("off", {"exact": True}), load_preset("exact", {"exact": False})]
    assert [[getattr(config["exact"], s.name) for s in savings] for config in switches] == [
        [s.name != "cuda_graphs" for s in savings],
        [False for _ in savings],
    ]
    # A preset that does not name them has their defaults.
    assert load_preset({"name": "mine"})["exact"] == load_preset("exact")["exact"]


def test_off_switches_nothing_on():
    assert load_preset("off").enabled == ()
    assert load_preset("exact").enabled == tuple(
        f"exact.{field.name}" for field in dataclasses.fields(REGISTRY["exact"].config) if field.name != "cuda_graphs"
    )


@pytest.mark.parametrize("path", preset_files(), ids=lambda path: path.stem)
def test_what_was_not_measured_on_a_gpu_is_off_everywhere(path):
    assert not load_preset(path)["exact"].cuda_graphs


def test_numbers_of_numpy_are_numbers():
    config = load_preset("paper", {"step_caching.stride": np.int64(2), "step_caching.momentum_beta": np.float32(0.25)})
    assert config["step_caching"].stride == 2
    assert type(config["step_caching"].stride) is int
    assert type(config["step_caching"].momentum_beta) is float
    with pytest.raises(UserError, match="whole number"):
        load_preset("paper", {"step_caching.stride": np.float64(2.5)})


def test_overrides_in_every_form():
    nested = load_preset("paper", {"step_caching": {"stride": 2}})
    dotted = load_preset("paper", {"step_caching.stride": 2})
    assert nested.to_dict() == dotted.to_dict()
    assert nested["step_caching"].stride == 2
    assert nested["step_caching"].warmup == 4  # the rest stays
    assert load_preset("off", {"token_carving": True})["token_carving"].enabled
    again = load_preset(nested, {"step_caching.stride": 3})
    assert again["step_caching"].stride == 3


def test_omegaconf_nodes_are_presets_too():
    node = OmegaConf.load(config_directory() / "acceleration" / "paper.yaml")
    assert load_preset(node).to_dict() == load_preset("paper").to_dict()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"step_cachin.stride": 2}, ["step_cachin", "did you mean", "step_caching"]),
        ({"step_caching.strid": 2}, ["step_caching.strid", "step_caching.stride"]),
        ({"step_caching.stride": 0}, ["step_caching.stride", "0", "1 to 50"]),
        ({"step_caching.stride": 2.5}, ["whole number"]),
        ({"step_caching.stride": True}, ["finite number"]),
        ({"step_caching.stride": "3"}, ["finite number"]),
        ({"step_caching.momentum_beta": float("nan")}, ["finite", "0.0 to 1.0"]),
        ({"adaptive_caching.threshold": float("inf")}, ["finite"]),
        ({"token_carving.carved_fraction": 1.5}, ["token_carving.carved_fraction", "0.0 to 0.95"]),
        ({"step_caching.enabled": 1}, ["true or false"]),
        ({"step_caching.axis": "clock"}, ["time, index"]),
        ({"step_caching": 3}, ["step_caching", "key: value"]),
        ({"exact.zero_conditions": True}, ["exact.zero_condition"]),
        ({"adaptive_caching": True, "latent_step_caching": True}, ["latent_step_caching.enabled=false"]),
    ],
)
def test_wrong_values_say_what_where_and_the_way_out(overrides, words):
    with pytest.raises(UserError) as caught:
        load_preset("off", overrides)
    for word in words:
        assert re.search(re.escape(word), str(caught.value)), str(caught.value)


def test_wrong_presets(tmp_path):
    with pytest.raises(UserError, match="did you mean balanced"):
        load_preset("balancd")
    with pytest.raises(UserError, match="no preset file"):
        load_preset(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    for content in (b"step_caching: {stride: [", b"5", b"name: \xff\xfe"):
        broken.write_bytes(content)
        with pytest.raises(UserError, match="is not a preset"):
            load_preset(broken)


def test_every_setting_is_described():
    for technique in REGISTRY.values():
        for name, text in technique.config.describe().items():
            assert len(text) > 10, f"{technique.name}.{name}"
