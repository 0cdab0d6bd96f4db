"""Loading by name: devices, random weights, strictness, and the messages of what is missing."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from fastsam3d.basics.devices import check_device
from fastsam3d.errors import UserError
from fastsam3d.jobs import request
from fastsam3d.sam3d.checkpoints import loading
from fastsam3d.sam3d.checkpoints.folder import load_strictly
from fastsam3d.sam3d.checkpoints.loading import load_pipeline
from fastsam3d.sam3d.models.precision import PRECISIONS, half_type


def test_unfitting_weights_are_listed_by_kind() -> None:
    module = nn.Linear(2, 3)
    before = module.bias.clone()
    with pytest.raises(UserError) as caught:
        load_strictly(module, {"weight": torch.zeros(3, 4), "scale": torch.zeros(1)}, "file.ckpt")
    message = str(caught.value)
    assert "1 missing (bias)" in message
    assert "1 unexpected (scale)" in message
    assert "weight is [3, 4] instead of [3, 2]" in message
    assert "file.ckpt" in message
    assert torch.equal(module.bias, before)


def test_weights_are_converted_to_the_type_of_the_module() -> None:
    module = nn.Linear(2, 3).half()
    weight = torch.arange(6.0).reshape(3, 2)
    load_strictly(module, {"weight": weight, "bias": torch.ones(3, dtype=torch.float64)}, "file.ckpt")
    assert module.weight.dtype == module.bias.dtype == torch.float16
    assert torch.equal(module.weight, weight.half())
    assert isinstance(module.weight, nn.Parameter)


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


def test_the_default_device_is_the_best_one_and_precision_has_one_name(monkeypatch) -> None:
    assert inspect.signature(load_pipeline).parameters["device"].default == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert check_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check_device("auto") == torch.device("cpu")
    assert [half_type(name) for name in PRECISIONS] == [None, torch.bfloat16, torch.float16]
    assert PRECISIONS == request.PRECISIONS  # of the command line
    with pytest.raises(UserError, match=r"unknown precision 'flaot16': did you mean float16"):
        load_pipeline("mini", precision="flaot16")


def test_random_weights_are_the_same_each_time_and_leave_global_numbers_alone(tiny_config, monkeypatch) -> None:
    monkeypatch.setattr(loading, "load_model_config", lambda path: tiny_config)
    state = torch.get_rng_state()
    first, second = (load_pipeline("mini", random_weights=True) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in first.models.state_dict().items():
        assert torch.equal(second.models.state_dict()[name], value)
    assert not any(p.requires_grad for p in first.models.parameters())
    assert not any(module.training for module in first.models.modules())
