"""The full-size benchmark as a program, on the small model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words: str, script: Path = ROOT / "benchmarks" / "full_size.py") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, timeout=1200)


@pytest.mark.slow
def test_trial_on_a_cpu_writes_tables_and_a_report(tmp_path: Path) -> None:
    done = run(
        "device=cpu", "model=mini", "precision=float32", "voxels=300", "steps=3", "rounds=1", "seconds=120",
        "methods=exact,upstream-like,exact:graphs,nonsense", f"output={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "full_size.json").read_text())
    assert [row["method"] for row in content["summary"]] == ["exact", "upstream-like", "exact:graphs"]
    exact, upstream, graphs = content["summary"]
    # A CPU has no CUDA graphs: the same work, and the table says so.
    assert graphs["tflop"] == exact["tflop"]
    assert "rest in sparse_structure: cpu is not a CUDA device" in graphs["graphs"]
    assert f"- exact:graphs: {graphs['graphs']}" in (tmp_path / "full_size.md").read_text()
    assert upstream["ratio"] == 1.0
    assert exact["ratio"] > 0
    assert exact["tflop"] < upstream["tflop"]
    assert exact["voxels"] == upstream["voxels"]
    # A method that fails is reported, once, and does not stop the others.
    assert [failure["method"] for failure in content["failures"]] == ["nonsense"]
    assert "nonsense" in (tmp_path / "full_size.md").read_text()

    # The report mode writes the same tables into the document, and only between its markers.
    shutil.copytree(ROOT / "benchmarks", tmp_path / "copy" / "benchmarks")
    (tmp_path / "copy" / "fastsam3d").symlink_to(ROOT / "fastsam3d")
    document = tmp_path / "copy" / "docs" / "full_size.md"
    document.parent.mkdir()
    document.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n")
    script = tmp_path / "copy" / "benchmarks" / "full_size.py"
    done = run(f"report={tmp_path / 'full_size.json'}", script=script)
    assert done.returncode == 0, done.stderr
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| upstream-like |" in text
    assert "old" not in text


def test_mistakes_are_explained() -> None:
    done = run("voxel=3")
    assert done.returncode == 2
    assert "unknown key 'voxel'" in done.stderr
    assert "Traceback" not in done.stderr
