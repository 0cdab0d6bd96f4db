"""The service over many jobs: its memory, its threads, its open files and its store stay bounded."""

from __future__ import annotations

import json
import os
import statistics
import threading
from pathlib import Path

import pytest
from service_requests import parts

from fastsam3d.cluster.service import accepting
from fastsam3d.cluster.service.store import JobStore

pytest.importorskip("fastapi", reason="fastapi is not installed here")
pytest.importorskip("httpx", reason="httpx is not installed here")
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


def private_mib() -> float:
    """Resident memory of this process that it shares with no other."""
    pages = [int(number) for number in Path("/proc/self/statm").read_text().split()]
    return (pages[1] - pages[2]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(("jobs", "look"), [(12, 4), pytest.param(200, accepting.EXPIRE_JOBS, marks=pytest.mark.slow)])
def test_many_jobs_leave_memory_and_store_bounded(serve, vase, tmp_path, monkeypatch, jobs, look):
    monkeypatch.setattr(accepting, "EXPIRE_EVERY", 3600.0)  # the store is looked at after so many jobs only
    monkeypatch.setattr(accepting, "EXPIRE_JOBS", look)
    client = serve(store_mib=1, queue=2)
    store = JobStore(tmp_path / "store")
    results, stored, memory, threads, files = [], [], [], [], []
    for seed in range(jobs):
        options = json.dumps({"seed": seed, "layout": False})
        answer = client.post("/v1/objects", files=parts(vase), data={"options": options}, params={"wait": 120})
        assert answer.status_code == 200, answer.text
        results.append(len(answer.content))
        stored.append(store.used())
        memory.append(private_mib())
        threads.append(threading.active_count())
        files.append(open_files())
    assert sum(results) > 1.2 * 2**20  # more than the store may hold
    most = 2**20 + (look + 2) * (max(results) + 50_000)  # of a job there are also its state and inputs
    assert max(size for _, size in stored) <= most
    assert max(threads) <= threads[4] + 8 and max(files) <= files[4] + 16, (threads, files)
    assert statistics.median(memory[-5:]) - statistics.median(memory[4:9]) < 50, memory
