"""Batches over Ray that lose a worker, another process of Ray or the driver at random moments, and go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray.data", reason="ray is not installed here: pip install 'fastsam3d[ray]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COUNT = 40
DRIVER = (
    "import sys\n"
    "from batch_stand_in import StandIn, stand_in_items\n"
    "from fastsam3d.cluster.batch.options import BatchOptions\n"
    "from fastsam3d.cluster.batch.running import run_items\n"
    "out = sys.argv[1]\n"
    "options = BatchOptions(output=out, workers=(2, 2), store_mib=80)\n"
    f"result = run_items(options, stand_in_items({COUNT}), StandIn(out, 0.15), {{}})\n"
    "sys.exit(result.failed)\n"
)


def start(out: Path) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(out)], env=os.environ | {"PYTHONPATH": paths})


def titles() -> dict[int, bytes]:
    """Command lines of all processes."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[int(path.parent.name)] = path.read_bytes()
        except OSError:
            continue
    return found


def victim(driver: int, kind: str, before: set[int]) -> int | None:
    own = {process: title for process, title in titles().items() if process not in before}
    if kind == "driver":
        return driver
    pool = [process for process, title in own.items() if title.startswith(b"ray::MapWorker")]
    others = [process for process, title in own.items() if title.startswith(b"ray::Attempts")]
    return next(iter(pool if kind == "worker" else others), None)


def written(out: Path) -> int:
    try:
        return len((out / "written.log").read_text().splitlines())
    except OSError:
        return 0


@pytest.mark.parametrize("kind", ["worker", "attempts", "driver"])
@pytest.mark.parametrize("moment", range(5))
def test_after_a_kill_everything_is_there_once_and_whole(tmp_path, kind, moment):
    out = tmp_path / "out"
    before = set(titles())
    driver = start(out)
    after = random.Random(f"{kind} {moment}").randrange(1, COUNT - 8)
    end = time.monotonic() + 300
    while written(out) < after and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process = victim(driver.pid, kind, before)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    code = driver.wait(timeout=300)
    assert code == (-signal.SIGKILL if kind == "driver" else 0)
    if kind == "driver":
        assert start(out).wait(timeout=300) == 0
    from pyarrow import parquet

    rows = parquet.read_table(out / "index.parquet").to_pylist()
    assert [row["name"] for row in rows] == [f"item_{n:05d}" for n in range(COUNT)]
    assert {row["status"] for row in rows} == {"ok"}
    texts = {path.parent.name: path.read_text() for path in out.glob("item_*/out.txt")}
    assert texts == {f"item_{n:05d}": f"item_{n:05d} {n}\n" for n in range(COUNT)}
    assert not [path for path in out.rglob("*.tmp") if path.is_file()]
    # Only what was in work at the kill may have been begun twice: of two workers two items, and one task ahead of each.
    assert written(out) <= COUNT + 2
