"""Schedules, budgets, checkpoints and averages of the training loops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fastsam3d.errors import UserError
from fastsam3d.training.optimization import (
    Average,
    Budget,
    OptimizerGroup,
    cosine_factor,
    load_checkpoint,
    require_checkpoint,
    save_checkpoint,
)


def test_cosine_by_hand() -> None:
    assert cosine_factor(0.01, warmup=0.02) == pytest.approx(0.5)
    assert cosine_factor(0.02, warmup=0.02) == pytest.approx(1.0)
    assert cosine_factor(0.51, warmup=0.02, final=0.0) == pytest.approx(0.5)
    assert cosine_factor(1.0, final=0.02) == pytest.approx(0.02)


def test_budget_counts_steps_and_needs_one_measure() -> None:
    budget = Budget(None, 4)
    budget.advance()
    assert budget.progress == 0.25
    with pytest.raises(ValueError, match="minutes or steps"):
        Budget(1.0, 4)
    assert Budget(0.0, None).progress == Budget(None, 0).progress == 1.0


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoint.pt"
    assert load_checkpoint(path) is None
    save_checkpoint(path, {"step": 3, "weight": torch.ones(2)})
    state = load_checkpoint(path)
    assert state is not None and state["step"] == 3 and torch.equal(state["weight"], torch.ones(2))
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_that_is_needed_and_missing_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint at .*nowhere\.pt: train the VAE first\."):
        require_checkpoint(tmp_path / "nowhere.pt", "train the VAE first")


def test_average_follows_the_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
    average = Average(module, decay=0.5)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average.update(module)  # warm-up: decay 2 / 11
    assert average.state["weight"].item() == pytest.approx(9 / 11)


def test_matrices_and_the_rest_go_to_different_optimizers() -> None:
    module = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 2))
    optimizer = OptimizerGroup(module, 1e-3, 1e-3)
    matrices = [p for o in optimizer.optimizers[1:] for g in o.param_groups for p in g["params"]]
    assert [tuple(p.shape) for p in matrices] == [(64, 32)]
    before = [p.detach().clone() for p in module.parameters()]
    module(torch.ones(4, 32)).square().sum().backward()
    optimizer.step(1.0)
    assert all(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    module = nn.Linear(2, 1)
    optimizer = OptimizerGroup(module, 1e-1)
    before = module.weight.detach().clone()
    (module(torch.ones(1, 2)) * float("nan")).sum().backward()
    optimizer.step(1.0)
    assert torch.equal(module.weight, before)
