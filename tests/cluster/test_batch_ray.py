"""Batches over Ray Data on a local Ray, which is started once: the same as in one process, and workers that die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_stand_in import StandIn, stand_in_items
from ray_processes import or_skipped, started_by

from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.cluster.batch.running import run_items
from fastsam3d.cluster.engines.connection import connected, quiet_environment
from fastsam3d.errors import UserError

quiet_environment()
pytest.importorskip("ray.data", reason="ray is not installed here: pip install 'fastsam3d[ray]'")
slow = pytest.mark.slow  # all but a quick one


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    # The workers are processes of their own, and load the stand-in by its name.
    folders = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1] / "helpers")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]))
        with or_skipped(connected(None, workers=3, cuda=False, store_mib=100)):
            yield


@pytest.fixture
def run(local_ray, tmp_path):
    def run(items, output="out", engine="ray", seconds=0.0, work=None, workers=(2, 2), **options):
        options = BatchOptions(output=str(tmp_path / output), engine=engine, workers=workers, **options)
        return run_items(options, items, work or StandIn(str(tmp_path / output), seconds), {"input": "stand-in"})

    return run


def workers() -> list[int]:
    """Processes of the pool's workers."""
    return started_by(os.getpid(), "ray::MapWorker")


def texts(folder: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in folder.glob("*/out.txt")}


def statuses(folder: Path) -> dict[str, str]:
    from pyarrow import parquet

    return {row["name"]: row["status"] for row in parquet.read_table(folder / "index.parquet").to_pylist()}


def test_two_workers_write_what_one_process_writes(run, tmp_path):
    items = stand_in_items(9, item_2="fail", item_4="break")
    here, there = run(items, "inline", engine="inline"), run(items, "ray", items_per_task=2)
    assert texts(tmp_path / "inline") == texts(tmp_path / "ray") and len(texts(tmp_path / "ray")) == 7
    assert statuses(tmp_path / "inline") == statuses(tmp_path / "ray")
    assert sorted(map(str, here.report["failures"])) == sorted(map(str, there.report["failures"]))
    assert run(items[:2], "ray").report["reused"] == 2


@slow
def test_an_item_that_kills_its_worker_twice_is_set_aside_and_the_rest_is_done(run, tmp_path):
    result = run(stand_in_items(8, item_3="kill"), items_per_task=4)
    assert result.report["poison"] == ["item_00003"]
    assert result.report["statuses"] == {"ok": 7, "poison": 1}
    assert "2 workers died while they computed it" in result.report["failures"][0]["error"]
    lines = (tmp_path / "out" / "written.log").read_text().splitlines()
    assert sorted(lines) == sorted(set(lines))  # what came before it in its task was not computed again


@slow
def test_a_worker_that_is_killed_is_replaced(run, tmp_path):
    killed = []

    def kill():
        log = tmp_path / "out" / "written.log"
        while not log.exists():
            time.sleep(0.05)
        killed.append(workers()[0])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    result = run(stand_in_items(20), seconds=0.1)
    thread.join()
    assert killed and result.report["statuses"] == {"ok": 20}
    assert texts(tmp_path / "out") == {f"item_{n:05d}": f"item_{n:05d} {n}\n" for n in range(20)}


@slow
def test_a_pool_grows_where_items_wait_and_ends_with_the_batch(run, tmp_path):
    counts, done, before = [], threading.Event(), set(workers())

    def watch():
        while not done.wait(0.1):
            counts.append(len(set(workers()) - before))

    thread = threading.Thread(target=watch)
    thread.start()
    result = run(stand_in_items(60), seconds=0.3, workers=(1, 3))
    done.set()
    thread.join()
    assert result.report["statuses"] == {"ok": 60} and result.report["workers"] == [1, 3]
    assert max(counts) in (2, 3), counts
    assert next(filter(None, counts)) == 1, counts  # the least number comes first
    end = time.monotonic() + 60
    while workers() and time.monotonic() < end:
        time.sleep(0.1)
    assert workers() == []


@slow
def test_a_pipeline_that_cannot_be_loaded_ends_the_batch_with_its_own_sentence(run, tmp_path):
    with pytest.raises(UserError, match=r"there are no weights\."):
        run(stand_in_items(4), work=StandIn(str(tmp_path / "out"), loads=False))
