"""What says that two measurements belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastsam3d.evaluation.measuring.provenance import code_fingerprint, config_fingerprint
from fastsam3d.sam3d.checkpoints.loading import model_config

FILES = {
    "errors.py": True,
    "diffusion/stage_runner.py": True,
    "models/layers.py": True,
    "evaluation/metrics/surfaces.py": True,
    "evaluation/benchmark/plots.py": False,
    "cli/infer.py": False,
}
"""Whether they count."""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    return tmp_path


@pytest.mark.parametrize(("name", "counts"), FILES.items())
def test_code_counts_where_a_measured_run_goes_through_it(package: Path, name: str, counts: bool) -> None:
    before = code_fingerprint(package)
    assert before == code_fingerprint(package)
    (package / name).write_text("changed\n")
    assert (code_fingerprint(package) != before) == counts


def test_a_file_that_moves_is_a_change(package: Path) -> None:
    before = code_fingerprint(package)
    (package / "models" / "layers.py").rename(package / "models" / "last.py")
    assert code_fingerprint(package) != before


def test_constants_of_the_model_count() -> None:
    config = model_config("mini")
    other = replace(config, slat_mean=(0.5, *config.slat_mean[1:]))
    first, again, second = (
        config_fingerprint(SimpleNamespace(config=c)) for c in (config, model_config("mini"), other)
    )
    assert first == again != second
    assert config_fingerprint(SimpleNamespace()) == ""
