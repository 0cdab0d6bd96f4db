"""Variables of OpenMP: what the programs set, where the user has set none, and that the library sets nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastsam3d.basics.threads.limits import CoreLimits
from fastsam3d.basics.threads.openmp import SPINNING, set_openmp_defaults, waiting

ROOT = Path(__file__).resolve().parents[3]
FREE, TIGHT = CoreLimits((0, 1, 2, 3), None), CoreLimits((0, 1, 2, 3), 2.5)


@pytest.fixture
def no_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.usefixtures("no_pytorch")
@pytest.mark.parametrize(
    ("given", "limits", "added"),
    [
        ({}, FREE, SPINNING),
        ({"GOMP_SPINCOUNT": "5"}, FREE, {"KMP_BLOCKTIME": SPINNING["KMP_BLOCKTIME"]}),
        ({"OMP_WAIT_POLICY": "passive"}, FREE, {}),
        ({}, TIGHT, {**SPINNING, "OMP_NUM_THREADS": "2"}),
        ({"OMP_NUM_THREADS": "3"}, TIGHT, SPINNING),
        ({"MKL_NUM_THREADS": "3"}, TIGHT, SPINNING),
    ],
)
def test_only_what_the_user_has_not_set_is_set(
    given: dict[str, str], limits: CoreLimits, added: dict[str, str]
) -> None:
    environment = dict(given)
    assert set_openmp_defaults(environment, limits) == added
    assert environment == {**given, **added}


def test_nothing_is_set_once_pytorch_is_loaded() -> None:
    environment: dict[str, str] = {}
    assert "torch" in sys.modules  # by the tests' own set-up
    assert set_openmp_defaults(environment, TIGHT) == {} == environment


def test_waiting_is_told() -> None:
    assert waiting({}) == "as OpenMP does by default"
    assert waiting({"GOMP_SPINCOUNT": "7", "HOME": "/"}) == "GOMP_SPINCOUNT=7"
    assert waiting({"OMP_WAIT_POLICY": "active"}) == "OMP_WAIT_POLICY=active"


def changed_by(code: str) -> str:
    show = "import os; before = dict(os.environ)\n{}\nprint(sorted(set(os.environ) - set(before)))"
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", show.format(code)], env=clean, capture_output=True, text=True, timeout=600, check=True
    )
    return done.stdout.splitlines()[-1]


def test_the_library_changes_no_variable_and_the_programs_do() -> None:
    library = "import fastsam3d, fastsam3d.cli.main, fastsam3d.basics.threads.openmp; fastsam3d.presets()"
    assert changed_by(library) == "[]"
    program = "from fastsam3d.cli.main import run; assert run('presets', []) == 0"
    assert {"'GOMP_SPINCOUNT'", "'KMP_BLOCKTIME'"} <= set(changed_by(program).strip("[]").split(", "))
