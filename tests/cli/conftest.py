"""A command line whose pipeline takes a fraction of a second, and a folder with a picture and its masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ball_pipeline import ball_pipeline, write_vase

from fastsam3d.basics.devices import check_device
from fastsam3d.cli.main import main
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

STEPS = ("model.ss_sampler.inference_steps=4", "model.slat_sampler.inference_steps=4")
QUICK = ("device=cpu", "threads=1", *STEPS, "preview=false")
"""One thread, so that the load of the machine changes no byte."""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The command line loads a tiny pipeline; the arguments of every load are recorded."""
    calls = []

    def load(model: str, **options: object) -> Pipeline:
        check_device(options["device"])
        calls.append({"model": model, **options, "pipeline": ball_pipeline()})
        return calls[-1]["pipeline"]

    monkeypatch.setattr("fastsam3d.sam3d.checkpoints.loading.load_pipeline", load)
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`vase/` with image.png, the cut-outs 0.png and 1.png, and a grey mask 2.png."""
    folder = tmp_path / "vase"
    write_vase(folder)
    return folder


@pytest.fixture
def run(loaded: list[dict], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a verb on the tiny pipeline, in this process: (exit code, stdout, stderr)."""

    def run(verb: str, *words: object) -> tuple[int, str, str]:
        quick = QUICK if verb in ("infer", "scene") else ()
        code = main([verb, *quick, *(str(word) for word in words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
