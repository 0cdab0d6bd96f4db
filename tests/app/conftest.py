"""A studio with the small model at three steps, and pictures that are quickly made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from app_stand_in import around_marks

from fastsam3d.app.runs.queue import JobQueue
from fastsam3d.app.server.uploads import Limits
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.sam3d.checkpoints.loading import load_pipeline
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

STEPS = 3


@pytest.fixture(scope="session")
def quick_pipeline() -> Pipeline:
    pipeline = load_pipeline("mini", formats=("mesh",))
    for name in ("ss_generator", "slat_generator"):
        pipeline.models[name].inference_steps = STEPS  # type: ignore[assignment]
    return pipeline


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    queue = JobQueue(capacity=2, timeout=60)
    yield queue
    queue.close()


@pytest.fixture
def studio(quick_pipeline: Pipeline, queue: JobQueue, tmp_path: Path) -> Studio:
    limits = Limits(file_bytes=200_000, pixels=1_000_000, side=256, objects=3, seeds=4, results=2)
    # Marks are cut without OpenCV here: what they enclose does not matter to a session.
    return Studio(lambda: quick_pipeline, tmp_path / "results", queue, limits, around_marks, warm=False)
