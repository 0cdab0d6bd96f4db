"""Preset files that somebody else wrote: nothing is looked up for them, and every odd one is a sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bounded_reading import assert_refused
from omegaconf import OmegaConf

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.errors import UserError

LAUGHS = "name: x\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
ODD = {
    "laughs": LAUGHS,
    "merged": "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
    "loop": "name: ${name}",
    "two_loops": "name: ${kind}\nkind: ${name}",
    "own_value": "a: &a [*a]",
    "environment": "name: ${oc.env:HOME}",
    "environment_in_text": "description: my ${oc.env:HOME} folder",
    "environment_as_key": "step_caching: {stride: '${oc.env:HOME}'}",
    "decoded": "name: ${oc.decode:'3'}",
    "created": "step_caching: ${oc.create:{stride: 3}}",
    "nested": "name: ${oc.env:${kind}}\nkind: HOME",
    "unknown": "name: ${nothing.there}",
    "whole_group": "step_caching: ${token_carving}\ntoken_carving: {enabled: true}",
    "deep": "name: " + "[" * 5000,
    "tag": "name: !!python/object/apply:os.system [true]",
    "list": "- 1\n- 2",
    "number": "5",
    "key_of_list": "? [a, b]\n: 1",
    "key_number": "1: {stride: 2}",
    "key_null": "~: {stride: 2}",
    "inner_key": "step_caching: {1: 2}",
    "huge": "step_caching: {stride: 1" + "0" * 400 + "}",
    "digits": "step_caching: {stride: " + "9" * 5000 + "}",
    "infinite": "step_caching: {stride: .inf}",
    "date": "step_caching: {stride: 2026-01-01}",
    "set": "step_caching: !!set {stride}",
    "binary": "step_caching: {stride: !!binary aGVsbG8=}",
    "twice": "name: a\nname: b",
    "zero": "name: a\0b",
    "tab": "name:\t- a\n\t- b",
    "choice": "step_caching: {axis: [time]}",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_presets_are_a_sentence(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "a secret of this machine")
    path = tmp_path / f"{name}.yaml"
    path.write_text(ODD[name])
    with pytest.raises(UserError) as caught:
        load_preset(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert "a secret" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and limits of memory")
def test_they_are_refused_in_time_and_within_memory(tmp_path: Path) -> None:
    files = {}
    for name in ("laughs", "merged", "deep", "own_value"):
        (tmp_path / f"{name}.yaml").write_text(ODD[name])
        files[name] = (tmp_path / f"{name}.yaml", "is not a preset")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    files["zero"] = (tmp_path / "zero.yaml", "pipe or a device")
    (tmp_path / "large.yaml").write_text("name: " + "x" * (1 << 21))
    files["large"] = (tmp_path / "large.yaml", "Make it smaller")
    assert_refused("fastsam3d.acceleration.presets.load_preset", files)


def test_own_keys_can_be_referred_to(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "name: mine\nstep_caching: {enabled: true, stride: 4}\ntoken_carving: {enabled: '${step_caching.enabled}'}\n"
    )
    config = load_preset(tmp_path / "a.yaml")
    assert config["token_carving"].enabled is True and config["step_caching"].stride == 4


def test_nodes_of_strangers_ask_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "a secret of this machine")
    node = OmegaConf.create({"acceleration": {"name": "${secret}"}, "secret": "${oc.env:HOME}"})
    for given in (node.acceleration, OmegaConf.create({"name": "${oc.env:HOME}"})):
        with pytest.raises(UserError, match="outside of the settings"):
            load_preset(given)
    assert load_preset(OmegaConf.create({"name": "${kind}", "kind": "preset"})).name == "preset"
    with pytest.raises(UserError, match="cannot be read"):
        load_preset(OmegaConf.create({"name": "${name}"}))


def test_aliases_within_bounds_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: &n mine\ndescription: *n\n")
    assert load_preset(tmp_path / "a.yaml").name == "mine"


def test_whole_numbers_beyond_floating_point_are_no_defect() -> None:
    with pytest.raises(UserError, match="finite number"):
        load_preset("off", {"step_caching.stride": 10**400})
