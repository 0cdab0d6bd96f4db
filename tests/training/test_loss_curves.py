"""Losses as curves, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from fastsam3d.cli.commands.evaluation.loss_curves import main
from fastsam3d.cli.main import guarded


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "losses.jsonl"
    lines = [{"step": 10 * i, "seconds": i, "norm": 1.0, "shape": 1 / i, "early": float("nan")} for i in range(1, 31)]
    lines[4]["early"], lines[9]["early"] = 0.5, 0.25
    lines.append({"step": 300, "seconds": 31, "held_out": 0.1})
    path.write_text("\n".join(json.dumps(line) for line in lines) + '\n{"step": 310, "sha')
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    curves = {}
    plot = Axes.plot

    def recorded(axes: Axes, steps: np.ndarray, values: np.ndarray, **looks: object) -> object:
        curves[looks["label"]] = steps, values
        return plot(axes, steps, values, **looks)

    monkeypatch.setattr(Axes, "plot", recorded)
    return curves


def test_losses_are_drawn_and_what_counts_or_times_is_not(log: Path, drawn: dict, tmp_path: Path) -> None:
    assert main([f"log={log}", f"output={tmp_path / 'losses.png'}"]) == 0
    assert drawn.keys() == {"shape", "early"}
    steps, values = drawn["shape"]
    # A mean of 3 of the 30 lines: the first point is that of steps 10, 20 and 30.
    assert (steps[0], len(values)) == (30, 28)
    assert values[0] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert [curve.tolist() for curve in drawn["early"]] == [[50, 100], [0.5, 0.25]]
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["columns=loss"], "has none of loss"),
        (["log=nowhere.jsonl"], "name the losses.jsonl of a training run"),
        (["smooth=0"], "a whole number of at least 1"),
    ],
)
def test_nothing_to_draw_is_said(
    words: list[str], message: str, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "losses.png"
    assert guarded(main, [f"log={log}", f"output={picture}", *words]) == 2
    assert message in capsys.readouterr().err
    assert not picture.exists()
