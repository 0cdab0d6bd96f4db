"""The stacked optimiser against PyTorch's, and its defining property."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastsam3d.training.muon import StackedMuon, orthogonalise


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(32, 64), (32, 64), (64, 32), (48, 48)]
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def test_singular_values_move_towards_one() -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.stack([m.detach() for m in matrices()[:2]])).float())
    assert float(values.min()) > 0.5 and float(values.max()) < 1.3


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon to compare with")
def test_the_updates_are_those_of_pytorch() -> None:
    ours, theirs = matrices(), matrices()
    stacked = StackedMuon(ours, lr=0.02, weight_decay=0.1)
    plain = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        stacked.step()
        plain.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)
