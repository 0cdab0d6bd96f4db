"""Checkpoint folders: official prefixes, strictness, safe unpickling and the messages of what is missing."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastsam3d.errors import UserError
from fastsam3d.models.build import build_condition_embedders, build_models
from fastsam3d.pipeline import loading
from fastsam3d.pipeline.loading import (
    EMBEDDER_PREFIX,
    GENERATOR_PREFIX,
    check_device,
    load_pipeline,
    load_strictly,
    load_weights,
    read_state,
)


class Hyperparameters:
    """Something that a training checkpoint carries beside its weights."""

    def __init__(self) -> None:
        self.values = [1, 2]


class Explosive:
    """Runs code when unpickled the ordinary way."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a checkpoint was run')",))


def networks(config, seed: int):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_models(config, ("mesh",)), build_condition_embedders(config)


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_weights_round_trip_under_the_official_names(tiny_config, tmp_path, suffix) -> None:
    models, embedders = networks(tiny_config, 1)
    for name, module in models.items():
        state = {key: value.half() for key, value in module.state_dict().items()}
        if name.endswith("generator"):
            embedder = embedders[name.replace("generator", "condition_embedder")].state_dict()
            state = prefixed(state, GENERATOR_PREFIX) | prefixed(embedder, EMBEDDER_PREFIX)
            state["_base_models.decoder.unused"] = torch.zeros(1)
        if suffix == ".safetensors":
            save_file(state, tmp_path / f"{name}.safetensors")
        else:
            content = {"state_dict": state, "hyper_parameters": Hyperparameters()} if "gen" in name else state
            torch.save(content, tmp_path / f"{name}.ckpt")
    loaded, loaded_embedders = networks(tiny_config, 2)
    load_weights(loaded, loaded_embedders, tmp_path)
    for name, value in models.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    for key in embedders:
        for name, value in embedders[key].state_dict().items():
            assert torch.equal(loaded_embedders[key].state_dict()[name], value)


def test_checkpoints_cannot_run_code(tmp_path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "extra": Explosive()}, tmp_path / "x.ckpt")
    state = read_state(tmp_path / "x.ckpt")
    assert list(state) == ["a"]
    assert state["a"].tolist() == [1.0, 1.0]


def test_unfitting_weights_are_listed_by_kind() -> None:
    module = nn.Linear(2, 3)
    with pytest.raises(UserError) as caught:
        load_strictly(module, {"weight": torch.zeros(3, 4), "scale": torch.zeros(1)}, "file.ckpt")
    message = str(caught.value)
    assert "1 missing (bias)" in message
    assert "1 unexpected (scale)" in message
    assert "weight is [3, 4] instead of [3, 2]" in message
    assert "file.ckpt" in message


def test_damaged_and_missing_files_are_named(tiny_config, tmp_path) -> None:
    (tmp_path / "ss_generator.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"ss_generator\.ckpt cannot be read"):
        read_state(tmp_path / "ss_generator.ckpt")
    models, embedders = networks(tiny_config, 0)
    (tmp_path / "ss_generator.ckpt").unlink()
    with pytest.raises(UserError, match=r"has no ss_generator\.safetensors"):
        load_weights(models, embedders, tmp_path)


def test_official_model_without_weights_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"sam-3d-objects.*checkpoint_dir.*random_weights"):
        load_pipeline("sam3d")
    with pytest.raises(UserError, match="does not exist"):
        load_pipeline("sam3d", checkpoint_dir="/nowhere/at/all")
    with pytest.raises(UserError, match=r"Unknown model 'huge'; choose from mini, sam3d"):
        load_pipeline("huge")


def test_absent_devices_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="finds none here"):
        check_device("cuda")
    with pytest.raises(UserError, match="not a device"):
        check_device("toaster")


def test_random_weights_are_the_same_each_time_and_leave_global_numbers_alone(tiny_config, monkeypatch) -> None:
    monkeypatch.setattr(loading, "load_model_config", lambda path: tiny_config)
    state = torch.get_rng_state()
    first, second = (load_pipeline("mini", random_weights=True) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in first.models.state_dict().items():
        assert torch.equal(second.models.state_dict()[name], value)
    assert not any(p.requires_grad for p in first.models.parameters())
    assert not any(module.training for module in first.models.modules())
