"""Networks that are built to be loaded take neither time nor memory nor random numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fastsam3d.sam3d.models.initialisation import SkipInitialisation

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process in memory."""
    return int(STATM.read_text().split()[1]) * 4096


@pytest.mark.skipif(not STATM.exists(), reason="this system does not tell a process's memory in /proc")
def test_unwritten_weights_take_no_memory() -> None:
    before = resident()
    with SkipInitialisation():
        layer = nn.Linear(16384, 16384)  # a gigabyte
        nn.init.zeros_(layer.weight)
        layer.half()
        layer.to(torch.bfloat16)
    assert layer.weight.shape == (16384, 16384)
    assert layer.weight.dtype == layer.bias.dtype == torch.bfloat16
    assert isinstance(layer.weight, nn.Parameter)
    assert resident() - before < 100 * 2**20


def test_random_numbers_are_not_drawn_and_buffers_are_computed() -> None:
    state = torch.get_rng_state()
    with SkipInitialisation():
        network = nn.Sequential(nn.Conv3d(2, 3, 3), nn.BatchNorm1d(4), nn.Embedding(3, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(network[1].running_var, torch.ones(4))


def test_outside_all_is_as_ever() -> None:
    with SkipInitialisation():
        pass
    layer = nn.LayerNorm(5)
    assert torch.equal(layer.weight, torch.ones(5))
    assert nn.Linear(3, 3).weight.abs().max() > 0
