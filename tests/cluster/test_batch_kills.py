"""Batches that lose a worker, another process of Ray or the driver at random moments, and go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from batch_stand_in import stand_in_items
from ray_processes import started_by

from fastsam3d.cluster.batch.index import PARQUET

ROOT = Path(__file__).resolve().parents[2]
COUNT = 40
TITLES = {"worker": "ray::MapWorker", "attempts": "ray::Attempts", "raylet": "/raylet/raylet"}
DRIVER = (
    "import sys\n"
    "from batch_stand_in import StandIn, stand_in_items\n"
    "from fastsam3d.cluster.batch.options import BatchOptions\n"
    "from fastsam3d.cluster.batch.running import run_items\n"
    "out, engine = sys.argv[1:]\n"
    "options = BatchOptions(output=out, engine=engine, workers=(2, 2), store_mib=80)\n"
    f"result = run_items(options, stand_in_items({COUNT}), StandIn(out, 0.15), {{}})\n"
    "sys.exit(result.failed)\n"
)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed here")


def start(out: Path, engine: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-c", DRIVER, str(out), engine]
    return subprocess.Popen(words, env=os.environ | {"PYTHONPATH": paths})


def victim(driver: int, kind: str) -> int | None:
    """The driver, a worker of the pool, the process that counts attempts, or the raylet."""
    return driver if kind == "driver" else next(iter(started_by(driver, TITLES[kind])), None)


def written(out: Path) -> int:
    try:
        return len((out / "written.log").read_text().splitlines())
    except OSError:
        return 0


def statuses(out: Path) -> dict[str, str]:
    import json

    if (out / PARQUET).is_file():
        from pyarrow import parquet

        rows = parquet.read_table(out / PARQUET).to_pylist()
    else:
        rows = [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]
    return {row["name"]: row["status"] for row in rows}


def killed(out: Path, engine: str, kind: str, moment: int) -> None:
    """Kills a process of a batch once a number of items is written, and goes on if the batch ended with it."""
    driver = start(out, engine)
    after = random.Random(f"{kind} {moment}").randrange(1, COUNT - 8)
    end = time.monotonic() + 300
    while written(out) < after and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process = victim(driver.pid, kind)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    code = driver.wait(timeout=300)
    if kind in ("worker", "attempts"):
        assert code == 0
    else:  # without its raylet a local Ray ends, and with it the driver
        assert code != 0 and written(out) < COUNT
        assert start(out, engine).wait(timeout=300) == 0


def check(out: Path, twice: int) -> None:
    """Everything is there, once and whole.

    Args:
        twice: items that may have been begun twice.
    """
    names = [item.name for item in stand_in_items(COUNT)]
    assert statuses(out) == dict.fromkeys(names, "ok")
    texts = {path.parent.name: path.read_text() for path in out.glob("item_*/out.txt")}
    assert texts == {name: f"{name} {number}\n" for number, name in enumerate(names)}
    assert written(out) <= COUNT + twice


@pytest.mark.parametrize("moment", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))])
def test_a_batch_in_one_process_goes_on_after_it_was_killed(tmp_path, moment):
    killed(tmp_path / "out", "inline", "driver", moment)
    check(tmp_path / "out", twice=1)


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["worker", "attempts", "driver", "raylet"])
@pytest.mark.parametrize("moment", range(5))
def test_a_batch_on_ray_goes_on_after_a_kill(tmp_path, kind, moment):
    killed(tmp_path / "out", "ray", kind, moment)
    check(tmp_path / "out", twice=2)
