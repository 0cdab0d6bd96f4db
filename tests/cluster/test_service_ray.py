"""The service on Ray Serve with the small model: the bytes of a single run, and a replica that dies under load."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ray_processes import or_skipped, started_by
from service_requests import BAD, LIMITS

from fastsam3d.cluster.engines.connection import quiet_environment
from fastsam3d.cluster.service.client import Client
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.errors import UserError
from fastsam3d.jobs.objects import run_object
from fastsam3d.jobs.request import request_with

quiet_environment()
pytest.importorskip("ray.serve", reason="ray is not installed here: pip install 'fastsam3d[ray]'")
slow = pytest.mark.slow  # all but a quick one

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STEPS = {"inference_steps": 2}
SETTINGS = {
    "device": "cpu",
    "threads": 1,
    "preview": False,
    "samplers": {"ss_sampler": STEPS, "slat_sampler": STEPS},
}
JOBS = 8


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from fastsam3d.cluster.service.ray_serve import serving

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = str(tmp_path_factory.mktemp("store"))
    options = ServeOptions(port=port, store=store, queue=JOBS, batch=2, object_store_mib=80, **LIMITS)
    with or_skipped(serving(options, request_with(**SETTINGS))) as address:
        yield address


def replicas() -> list[int]:
    return started_by(os.getpid(), "ray::ServeReplica:fastsam3d:Reconstruction")


def test_a_request_alone_gives_the_bytes_of_the_command_line(address, tmp_path):
    chair = EXAMPLES / "chair"
    sent = Client(address).object(chair / "image.png", chair / "0.png", seed=4)
    where = {"image_path": str(chair / "image.png"), "mask_path": str(chair / "0.png"), "output_dir": str(tmp_path)}
    run_object(request_with(name="object", seed=4, pointmap="none", export=["glb"], **SETTINGS, **where))
    assert sent == (tmp_path / "object.glb").read_bytes()


@slow
def test_a_mistake_is_told_in_the_same_sentence(address, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"picture\.png is not an image that can be read; use PNG or JPEG\."):
        Client(address).object(tmp_path / "x.png", EXAMPLES / "chair" / "0.png")


@slow
def test_mistakes_of_a_client_are_told_in_a_sentence(address):
    httpx = pytest.importorskip("httpx", reason="httpx is not installed here")
    for name, (path, files, data, code, said) in BAD.items():
        answer = httpx.post(f"{address}{path}", files=files, data=data, timeout=60)
        assert answer.status_code == code, (name, answer.text)
        assert said in answer.json()["error"] and "\n" not in answer.json()["error"], name
    assert len(BAD) >= 30
    assert httpx.get(f"{address}/healthz").status_code == 200


@slow
def test_a_replica_that_is_killed_under_load_loses_no_job(address):
    chair, client = EXAMPLES / "chair", Client(address)
    with ThreadPoolExecutor(JOBS) as clients:
        jobs = [clients.submit(client.object, chair / "image.png", chair / "0.png", seed=n) for n in range(JOBS)]
        while not any(job.done() for job in jobs):
            time.sleep(0.05)
        for process in replicas():
            os.kill(process, signal.SIGKILL)
        results = [job.result(timeout=600) for job in jobs]
    assert all(result[:4] == b"glTF" for result in results)
    assert len(set(results)) == JOBS  # each seed gives an object of its own
