"""The whole training calls its stages, in order, with settings that fit them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastsam3d.cli.main import main
from fastsam3d.training import export
from fastsam3d.training.data import dataset
from fastsam3d.training.sparse_structure import flow as sparse_structure_flow
from fastsam3d.training.sparse_structure import vae as sparse_structure_vae
from fastsam3d.training.structured_latent import flow as structured_latent_flow
from fastsam3d.training.structured_latent import vae as structured_latent_vae

STAGES = {
    "ss_vae": sparse_structure_vae,
    "slat_vae": structured_latent_vae,
    "ss_flow": sparse_structure_flow,
    "slat_flow": structured_latent_flow,
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What would be trained: names of stages with their options."""
    made: list[tuple[str, Any]] = []
    for name, module in STAGES.items():
        monkeypatch.setattr(module, "train", lambda options, name=name: made.append((name, options)))
    monkeypatch.setattr(dataset, "generate", lambda *words, **more: made.append(("data", (*words, more))))
    monkeypatch.setattr(export, "export", lambda options: made.append(("export", options)))
    return made


def test_all_stages_on_a_cpu_share_the_time(calls, tmp_path):
    assert main(["train", f"output={tmp_path}", "minutes=100", "objects=7", "workers=2", "seed=3"]) == 0
    assert [name for name, _ in calls] == ["data", "ss_vae", "slat_vae", "ss_flow", "slat_flow", "export"]
    found = dict(calls)
    assert found["data"] == (tmp_path / "data", 7, {"workers": 2})
    assert sum(found[name].minutes for name in STAGES) == pytest.approx(100)
    assert found["ss_vae"].minutes == pytest.approx(7) and found["ss_flow"].seed == 3
    assert found["ss_vae"].data == found["slat_flow"].data == str(tmp_path / "data") and found["slat_vae"].data is None
    assert found["ss_flow"].vae == str(Path(found["ss_vae"].output) / "checkpoint.pt")
    assert found["slat_flow"].embedder == str(Path(found["ss_flow"].output) / "checkpoint.pt")
    assert found["export"].slat_flow == found["slat_flow"].output and found["export"].output == "fastsam3d/mini"


def test_on_a_gpu_objects_are_made_there_and_batches_are_large(calls, tmp_path):
    assert main(["train", f"output={tmp_path}", "device=cuda", "objects=7"]) == 0
    assert [name for name, _ in calls] == ["ss_vae", "slat_vae", "ss_flow", "slat_flow", "export"]
    found = dict(calls)
    assert all(found[name].data is None and found[name].objects == 7 for name in STAGES)
    assert (found["ss_vae"].batch, found["ss_flow"].images, found["ss_flow"].compile) == (128, 256, True)


def test_one_stage_gets_all_of_the_time_and_no_embedder(calls, tmp_path):
    assert main(["train", f"output={tmp_path}", "stage=slat_flow", "minutes=5"]) == 0
    ((name, options),) = calls
    assert (name, options.minutes, options.embedder) == ("slat_flow", 5, None)


def test_a_program_takes_its_own_flags(calls, tmp_path):
    words = ["--output", str(tmp_path), "--minutes", "2", "--images", "9", "--matrix-learning-rate", "0"]
    assert main(["train", "structured-latent-flow", *words]) == 0
    ((name, options),) = calls
    assert (name, options.images, options.matrix_learning_rate, options.noises) == ("slat_flow", 9, 0, 2)


def test_a_mistyped_program_is_named(calls, capsys):
    assert main(["train", "structured-latent-flw", "--minutes", "2"]) == 2
    assert "Did you mean structured-latent-flow" in capsys.readouterr().err and calls == []


def test_statistics_need_no_length(calls, tmp_path):
    assert main(["train", "structured-latent-vae", "--output", str(tmp_path), "--statistics"]) == 0
    ((_, options),) = calls
    assert options.statistics and options.steps is None
