"""A family, a host and an exact saving from outside of the package, and plug-ins that register them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fastsam3d
from fastsam3d.acceleration import family as families
from fastsam3d.acceleration.compatibility import Rules
from fastsam3d.acceleration.family import Family, register_family, remove_family
from fastsam3d.acceleration.presets import load_preset
from fastsam3d.acceleration.registry import Registry, Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.diffusion.exact.saving import (
    ExactSaving,
    Nesting,
    PipelineTarget,
    register_saving,
    remove_saving,
)
from fastsam3d.errors import UserError


class Adder:
    """A model of another kind: adds its numbers."""

    def add(self, numbers: list[int]) -> int:
        return sum(numbers)


@dataclass(frozen=True)
class SkipConfig(TechniqueConfig):
    enabled: bool = setting(False, "Switches the technique.")
    below: int = setting(2, "Numbers below this are left out. Raising: faster, less exact.", low=0, high=10)


class AdderHost:
    name, family = "Adder", "adders"

    def __init__(self, target: Adder) -> None:
        self.target = target

    def describe_differences(self) -> list[str]:
        return []


class AdderAttachment:
    def __init__(self) -> None:
        import threading

        self.lock, self.left_out = threading.RLock(), 0

    def report(self) -> int:
        return self.left_out

    def reset_report(self) -> None:
        self.left_out = 0

    def add_report(self, other: int) -> None:
        self.left_out += other

    def release(self) -> None:
        pass


class AdderFamily(Family):
    name, presets, rules = "adders", "adders", Rules(capabilities={}, stages={"sum": "the sum"})
    registry = Registry({}, lambda: None)

    def find_host(self, model: Any) -> AdderHost | None:
        return AdderHost(model) if isinstance(model, Adder) else None

    def known_models(self) -> list[str]:
        return ["Adder"]

    def fit(self, host: Any, config: Any) -> Any:
        return config

    def attach(self, host: Any, config: Any, patches: Any, accelerate: Any) -> AdderAttachment:
        attached, skip = AdderAttachment(), config["skip"]

        def adding(original: Any) -> Any:
            def add(numbers: list[int]) -> int:
                kept = [n for n in numbers if not skip.enabled or n >= skip.below]
                attached.left_out += len(numbers) - len(kept)
                return int(original(kept))

            return add

        patches.replace(host.target, "add", adding)
        return attached


@pytest.fixture
def adders() -> Iterator[None]:
    register_family(AdderFamily())
    AdderFamily.registry.register(Technique("skip", SkipConfig, "skip", ("sum",)))
    yield
    remove_family("adders")


def test_another_kind_of_model_is_accelerated_by_the_same_verb(adders: None) -> None:
    model = Adder()
    with fastsam3d.accelerate(model, {"name": "mine", "skip": True}) as acceleration:
        assert model.add([1, 2, 3]) == 5
        assert acceleration.report() == 1
        assert "mine" in repr(acceleration) and "Adder" in repr(acceleration)
    assert model.add([1, 2, 3]) == 6
    assert vars(model) == {}


def test_settings_of_one_family_are_refused_by_another(adders: None) -> None:
    with pytest.raises(UserError, match="of the family diffusion, and this one is of the family adders"):
        fastsam3d.accelerate(Adder(), load_preset("balanced"))
    with pytest.raises(UserError, match="unknown technique 'step_caching'"):
        fastsam3d.accelerate(Adder(), {"skip": True}, step_caching={"stride": 2})
    with pytest.raises(UserError, match=r"skip\.below is 11, out of range"):
        fastsam3d.accelerate(Adder(), {"skip": {"enabled": True, "below": 11}})


def test_a_model_of_no_family_is_refused_with_all_that_are_known(adders: None) -> None:
    with pytest.raises(UserError, match=r"known are .*SAM 3D Objects.*TRELLIS.*Adder"):
        fastsam3d.accelerate(object())


class Doubled:
    """Wraps a feed-forward, and counts its calls."""

    calls = 0

    def wrap(self, original: Any) -> Any:
        def forward(x: Any) -> Any:
            Doubled.calls += 1
            return original(x)

        return forward


@pytest.fixture
def saving() -> Any:
    def attach(target: PipelineTarget) -> None:
        for sequence in target.host.feed_forwards():
            target.patches.replace(sequence, "forward", Doubled().wrap)

    text = "Counts feed-forwards. No faster; no cost."
    yield register_saving(ExactSaving("counted", text, Nesting.OPERATORS, ("feed_forwards",), attach))
    remove_saving("counted")
    Doubled.calls = 0


def test_an_exact_saving_is_one_registration(pipeline: Any, picture: Any, saving: ExactSaving) -> None:
    plain = pipeline.run(*picture, seed=1)
    assert load_preset("exact")["exact"].counted and not load_preset("off")["exact"].counted
    with fastsam3d.accelerate(pipeline, "off", **{"exact.counted": True}) as acceleration:
        result = pipeline.run(*picture, seed=1)
        assert "exact.counted" in acceleration.report().techniques
    assert Doubled.calls > 0
    assert torch.equal(result.feats, plain.feats)
    settings = load_preset("exact", {"exact.counted": False})
    assert pickle.loads(pickle.dumps(settings))["exact"] == settings["exact"]
    remove_saving("counted")
    with pytest.raises(UserError, match=r"unknown key exact\.counted"):
        load_preset("exact", {"exact.counted": True})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "condition_cache"}, "registered already"),
        ({"name": "two words"}, "one word"),
        ({"sites": ("surfaces",)}, "asks for the site 'surfaces'"),
    ],
)
def test_a_saving_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    load_preset("exact")
    values = {"name": "mine", "help": "Does nothing at all.", "nesting": 10, "sites": ()} | change
    with pytest.raises(ValueError, match=message):
        register_saving(ExactSaving(**values))


def test_plug_ins_are_loaded_once_and_a_broken_one_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = []

    def broken() -> None:
        raise ImportError("no module named nothing")

    entries = [
        SimpleNamespace(name="good", value="good:plugin", load=lambda: loaded.append("good")),
        SimpleNamespace(name="bad", value="bad:plugin", load=broken),
    ]
    by_group = {"fastsam3d.plugins": entries}
    monkeypatch.setattr(families.metadata, "entry_points", lambda group: by_group.get(group, []))
    families.load_plugins.cache_clear()
    try:
        assert families.families()[0].name == "diffusion"
        families.families()
    finally:
        families.load_plugins.cache_clear()
    assert loaded == ["good"]
    assert "the plug-in bad (bad:plugin) is skipped: no module named nothing" in caplog.text
