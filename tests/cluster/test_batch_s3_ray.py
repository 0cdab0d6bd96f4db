"""Whole batches over Ray Data against a local server that speaks S3: files in, files out, kills, going on."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_stand_in import StandIn, stand_in_items
from ray_processes import or_skipped, started_by

from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.cluster.batch.places import place_of
from fastsam3d.cluster.batch.running import BatchResult, run_batch, run_items
from fastsam3d.cluster.engines.connection import connected, quiet_environment
from fastsam3d.jobs.request import request_with

quiet_environment()
pytest.importorskip("ray.data", reason="ray is not installed here: pip install 'fastsam3d[ray]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])
STEPS = {"inference_steps": 2}
SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "preview": False,
    "export": ["glb"],
    "samplers": {"ss_sampler": STEPS, "slat_sampler": STEPS},
}
COUNT = 40
DRIVER = (
    "import sys\n"
    "from batch_stand_in import StandIn, stand_in_items\n"
    "from fastsam3d.cluster.batch.options import BatchOptions\n"
    "from fastsam3d.cluster.batch.running import run_items\n"
    "options = BatchOptions(output=sys.argv[1] + '/out', workers=(2, 2), store_mib=80)\n"
    f"items = stand_in_items({COUNT}, sys.argv[1] + '/in')\n"
    "sys.exit(run_items(options, items, StandIn(options.output, 0.15), {}).failed)\n"
)


@pytest.fixture(scope="module")
def local_ray(s3_server) -> Iterator[None]:
    # Started after the server, whose address its processes find in their environment.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", FOLDERS)
        with or_skipped(connected(None, workers=2, cuda=False, store_mib=100)):
            yield


def upload(bucket: str, count: int) -> None:
    """Pictures `in/0.png`, ..., each of other bytes."""
    for number in range(count):
        place_of(bucket).write(f"in/{number}.png", f"picture {number}".encode())


def expected(count: int) -> dict[str, bytes]:
    """What the stand-in writes for each item."""
    return {f"item_{n:05d}/out.txt": f"item_{n:05d} {n}\npicture {n}".encode() for n in range(count)}


def texts(bucket: str) -> dict[str, bytes]:
    out = place_of(f"{bucket}/out")
    return {name: out.read(name) for name in out.files() if name.endswith("/out.txt")}


def statuses(bucket: str) -> dict[str, str]:
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(place_of(bucket).read("out/index.parquet")))
    return {row["name"]: row["status"] for row in table.to_pylist()}


def test_workers_write_to_s3_the_bytes_of_one_process(bucket, local_ray, tmp_path):
    for name in ("chair", "car"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / "in" / name)
    for name in place_of(str(tmp_path / "in")).files():
        place_of(f"{bucket}/in").write(name, (tmp_path / "in" / name).read_bytes())

    def run(source: str, output: str, engine: str, workers: int = 2) -> BatchResult:
        options = BatchOptions(input=source, output=output, engine=engine, workers=(workers, workers))
        return run_batch(options, request_with(**SETTINGS))

    here = run(str(tmp_path / "in"), str(tmp_path / "out"), "inline")
    there = run(f"{bucket}/in", f"{bucket}/out", "ray")
    alone = run(f"{bucket}/in", f"{bucket}/alone", "ray", workers=1)
    assert (here.failed, there.failed, alone.failed) == (0, 0, 0)
    out, results = place_of(f"{bucket}/out"), place_of(str(tmp_path / "out")).files()
    compared = [name for name in results if "/" in name and not name.endswith("report.json")]
    assert len([name for name in compared if name.endswith(".glb")]) >= 2
    for name in compared:
        assert out.read(name) == (tmp_path / "out" / name).read_bytes(), name
        assert place_of(f"{bucket}/alone").read(name) == out.read(name), name
    assert {"index.parquet", "report.json"} <= out.files().keys() and results.keys() <= out.files().keys()
    assert run(f"{bucket}/in", f"{bucket}/out", "ray").report["reused"] == 2
    lost = next(name for name in compared if name.endswith(".glb"))
    out._system.rm_file(f"{out._root}/{lost}")
    assert run(f"{bucket}/in", f"{bucket}/out", "ray").report["reused"] == 1
    assert out.read(lost) == (tmp_path / "out" / lost).read_bytes()


def test_failures_poison_and_a_killed_worker(bucket, local_ray):
    upload(bucket, 20)
    items = stand_in_items(20, f"{bucket}/in", item_3="fail", item_7="kill")
    killed: list[int] = []

    def kill() -> None:
        while not killed and time.monotonic() < end:
            time.sleep(0.1)
            if len(texts(bucket)) >= 5:
                killed.append(workers()[0])
                os.kill(killed[0], signal.SIGKILL)

    end = time.monotonic() + 120
    thread = threading.Thread(target=kill)
    thread.start()
    options = BatchOptions(output=f"{bucket}/out", workers=(2, 2))
    result = run_items(options, items, StandIn(f"{bucket}/out", 0.3), {})
    thread.join()
    assert killed
    wanted = dict.fromkeys((item.name for item in items), "ok") | {"item_00003": "failed", "item_00007": "poison"}
    assert statuses(bucket) == wanted and result.report["poison"] == ["item_00007"]
    whole = expected(20)
    del whole["item_00003/out.txt"], whole["item_00007/out.txt"]
    assert texts(bucket) == whole


def test_a_batch_whose_driver_was_killed_goes_on(bucket):
    upload(bucket, COUNT)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", DRIVER, bucket], env=os.environ | {"PYTHONPATH": FOLDERS})

    driver = start()
    end = time.monotonic() + 200
    while len(texts(bucket)) < 10 and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert 10 <= len(texts(bucket)) < COUNT
    assert start().wait(timeout=200) == 0
    assert statuses(bucket) == dict.fromkeys((item.name for item in stand_in_items(COUNT)), "ok")
    assert texts(bucket) == expected(COUNT)


def workers() -> list[int]:
    """Processes of the pool's workers."""
    return started_by(os.getpid(), "ray::MapWorker")
