"""A user's script is checked with the types of the package: nothing public is Any by accident."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "data" / "user_script.py"
REVEALED = {
    "fastsam3d.load_pipeline()": "fastsam3d.sam3d.pipeline.pipeline.Pipeline",
    "fastsam3d.load_pipeline().run": "fastsam3d.sam3d.pipeline.reconstruction.Reconstruction",
    "fastsam3d.accelerate(1)": "fastsam3d.acceleration.handle.Acceleration",
    "fastsam3d.accelerate(1).report().total.seconds": "float",
    "fastsam3d.presets()": "tuple[str, ...]",
}


@pytest.mark.slow
def test_strict_mypy_finds_no_error_and_knows_the_types(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed here")
    revealing = "\n".join(["import fastsam3d", *(f"reveal_type({expression})" for expression in REVEALED)])
    (tmp_path / "revealing.py").write_text(revealing + "\n", encoding="utf-8")
    shutil.copy(SCRIPT, tmp_path)
    # Found in the source tree, as through the .pth file of an editable installation, and silent as installed packages.
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--config-file=",
        "--cache-dir=cache",
    ]
    done = subprocess.run(
        [*command, SCRIPT.name, "revealing.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    notes = [
        line.partition('Revealed type is "')[2].rstrip('"') for line in done.stdout.splitlines() if "Revealed" in line
    ]
    assert len(notes) == len(REVEALED)
    for note, expected in zip(notes, REVEALED.values(), strict=True):
        assert expected in note
