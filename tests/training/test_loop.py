"""What every stage's training goes through: an interrupted run ends as one that was not, and the log says what was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.optimization import Average, Budget, OptimizerGroup, cosine_factor, load_checkpoint


class Interrupted(Exception):
    pass


def train(folder: Path, steps: int, stop_before: int | None = None, **settings: object) -> TrainingLoop:
    """A matrix (Muon) and its bias (AdamW) learn from noise; a checkpoint after every step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(32, 32)
    generator = torch.Generator().manual_seed(1)
    optimizer, average = OptimizerGroup(model, 1e-2, 1e-2), Average(model, 0.9)
    settings = {"average": average, "save_seconds": -1.0, "contents": {"scale": torch.ones(2)}} | settings
    loop = TrainingLoop("test", folder, Budget(None, steps), model, optimizer, generator, **settings)  # type: ignore[arg-type]
    for progress in loop.steps():
        if loop.budget.step == stop_before:
            raise Interrupted
        loss = (model(torch.randn(4, 32, generator=generator)) - 1).square().mean()
        loss.backward()
        optimizer.step(cosine_factor(progress))
        average.update(model)
        loop.record({"loss": loss, "rare": float(loop.budget.step) if loop.budget.step % 2 else None})
    return loop


def contents(folder: Path) -> dict:
    state = load_checkpoint(folder / "checkpoint.pt")
    assert state is not None
    assert state.pop("seconds") > 0
    return state


def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 6)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", 6, stop_before=4)
    half = contents(tmp_path / "parts")
    assert half["step"] == 4
    resumed = train(tmp_path / "parts", 6)
    assert (whole.resumed, resumed.resumed) == (False, True)
    first, second = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert not torch.equal(half["model"]["weight"], second["model"]["weight"])
    assert first["step"] == second["step"] == 6
    assert first.keys() == second.keys() == {"model", "average", "optimizer", "generator", "step", "scale"}
    for name in ("model", "average"):
        assert all(torch.equal(first[name][key], second[name][key]) for key in first[name])
    for before, after in zip(first["optimizer"], second["optimizer"], strict=True):
        assert before["param_groups"] == after["param_groups"]
        for number, state in before["state"].items():
            assert all(torch.equal(value, after["state"][number][key]) for key, value in state.items())
    assert torch.equal(first["generator"], second["generator"])


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    train(tmp_path, 2)
    before = contents(tmp_path)["model"]["weight"]
    assert train(tmp_path, 2, stop_before=2).budget.step == 2
    assert torch.equal(contents(tmp_path)["model"]["weight"], before)


def test_the_log_holds_an_exponential_mean_and_the_last_norm(tmp_path: Path) -> None:
    loop = train(tmp_path, 4, log_every=4, fresh=0.25)
    (line,) = [json.loads(text) for text in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert line.keys() == {"step", "seconds", "norm", "loss", "rare"}
    assert line["step"] == 4
    # Measured in steps 1 and 3: the first value, then a quarter of the second.
    assert line["rare"] == 0.75 * 1 + 0.25 * 3
    assert line["norm"] == pytest.approx(loop.optimizer.norm, abs=1e-6)


def test_of_several_processes_one_writes_and_all_stop_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[float] = []
    agree: Callable[[float], float] = lambda own: seen.append(own) or len(seen) / 3  # noqa: E731
    loop = train(tmp_path, 100, writes=False, agree=agree)
    assert seen == [0.0, 0.01, 0.02]
    assert loop.budget.step == 2
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""
