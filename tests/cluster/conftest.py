"""A folder with photo folders, and a batch whose pipeline takes a fraction of a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ball_pipeline import ball_pipeline, write_vase

from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.cluster.batch.running import BatchResult, run_batch
from fastsam3d.jobs.request import request_with
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

STEPS = {"inference_steps": 2}
SAMPLERS = {"ss_sampler": STEPS, "slat_sampler": STEPS}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """`photos/a`, `photos/b` with three masks each, and `photos/notes.txt`."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        write_vase(folder / name)
    (folder / "notes.txt").write_text("no photo")
    return folder


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
def batch(loads: list[str], tmp_path: Path) -> Callable[..., BatchResult]:
    """Runs a batch in this process, of two steps a stage and without previews, into `out`."""

    def batch(source: str | Path, output: str = "out", resume: bool = True, **values: Any) -> BatchResult:
        where = output if "://" in output else str(tmp_path / output)
        options = BatchOptions(input=str(source), output=where, engine="inline", resume=resume)
        quick = {"device": "cpu", "preview": False, "export": ["glb"], "formats": ["mesh"]}
        return run_batch(options, request_with(samplers=SAMPLERS, **quick | values))

    return batch


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    """The rows of the ledger of `out` by name, the last of each; fails where a name has two rows of status ok."""

    def rows(output: str = "out") -> dict[str, dict[str, Any]]:
        text = (tmp_path / output / ".batch" / "rows.jsonl").read_text()
        return {row["name"]: row for row in map(json.loads, text.splitlines())}

    return rows
