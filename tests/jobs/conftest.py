"""Jobs whose pipeline takes a fraction of a second, a folder with a picture and its masks, and a listener."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ball_pipeline import ball_pipeline, write_vase

from fastsam3d.jobs.request import Request, request_with
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

STEPS = {"inference_steps": 4}


class Recorder:
    """A listener that keeps everything it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None, int | None]] = []
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        self.steps.append((text, done, total))

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def listener() -> Recorder:
    return Recorder()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every load gives a tiny pipeline; the models that were loaded are recorded."""
    models: list[str] = []

    def load(model: str, **options: object) -> Pipeline:
        models.append(model)
        return ball_pipeline()

    monkeypatch.setattr("fastsam3d.sam3d.checkpoints.loading.load_pipeline", load)
    return models


@pytest.fixture
def vase(tmp_path: Path) -> Path:
    folder = tmp_path / "vase"
    write_vase(folder)
    return folder


@pytest.fixture
def ask(loads: list[str], tmp_path: Path) -> Callable[..., Request]:
    """A request of four steps a stage, on one thread of the CPU, so that the load changes no byte, without preview."""

    def ask(output: str, **values: Any) -> Request:
        samplers = {"ss_sampler": STEPS, "slat_sampler": STEPS} | values.pop("samplers", {})
        quick = {"device": "cpu", "threads": 1, "preview": False, "output_dir": str(tmp_path / output)}
        return request_with(samplers=samplers, **quick | values)

    return ask
