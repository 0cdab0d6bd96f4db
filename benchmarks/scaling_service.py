"""A service and its clients, for the load test of `scaling.py`."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from scaling_memory import processes

from fastsam3d.cluster.batch.running import on_one_thread
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.plain import plain_application
from fastsam3d.cluster.service.store import JobStore
from fastsam3d.jobs.request import request_with

PATIENCE = 300.0
"""Seconds after which a request without an answer counts as lost."""
TITLES = ("ray::ServeReplica:fastsam3d:Ingress", "ray::ServeReplica:fastsam3d:Reconstruction")
"""Begin of the command lines of the service's processes on Ray."""


@contextlib.contextmanager
def running(engine: str, steps: int, folder: str, store_mib: int = 4096) -> Iterator[str]:
    """A service inside a `with` block; yields its address once a worker is loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ServeOptions(port=port, store=folder, queue=32, wait=PATIENCE, store_mib=store_mib)
    samplers = {part: {"inference_steps": steps} for part in ("ss_sampler", "slat_sampler")}
    request = on_one_thread(request_with(device="cpu", samplers=samplers, output_dir="."))
    if engine == "ray":
        from fastsam3d.cluster.service.ray_serve import serving

        with serving(options, request) as address:
            _until_ready(address)
            yield address
        return
    import uvicorn

    config = uvicorn.Config(plain_application(options, request), port=port, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        _until_ready(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=60)


def _until_ready(address: str) -> None:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=10):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError("the service is not ready")


def loaded(
    address: str,
    photo: Path,
    clients: int,
    seconds: float = float("inf"),
    jobs: float = float("inf"),
    ended: Callable[[int], None] = lambda done: None,
) -> tuple[Counter[str], list[float], float]:
    """Clients ask again and again, for some seconds or until there are so many results.

    Args:
        ended: called with the number of results after each.

    Returns:
        (how the requests ended, seconds of those with a result, seconds in all).
    """
    answers: Counter[str] = Counter()
    latencies: list[float] = []
    lock, start, seeds = threading.Lock(), time.monotonic(), itertools.count()

    def client() -> None:
        while time.monotonic() < start + seconds and (seed := next(seeds)) < jobs:
            begin = time.monotonic()
            kind = _asked(address, photo, seed)
            with lock:
                answers[kind] += 1
                if kind == "200":
                    latencies.append(time.monotonic() - begin)
                    ended(len(latencies))
            if kind == "429":
                time.sleep(0.5)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, latencies, time.monotonic() - start


def kill_a_replica(after: float) -> Future[int]:
    """Kills a replica after some seconds; the result is the number of killed processes."""

    def kill() -> int:
        time.sleep(after)
        found = processes(TITLES[1:])
        for process, _ in found[:1]:
            os.kill(process, signal.SIGKILL)
        return len(found[:1])

    return ThreadPoolExecutor(1).submit(kill)


def unfinished(folder: str) -> int:
    """Accepted jobs that have no end, of a service whose clients have gone."""
    return len(JobStore(folder).waiting())


def _asked(address: str, photo: Path, seed: int) -> str:
    """The status of an answer that is whole; `lost` for anything else."""
    limit = secrets.token_hex(16)
    body = b""
    for part, path in (("picture", photo / "image.png"), ("mask", photo / "0.png")):
        head = f'--{limit}\r\nContent-Disposition: form-data; name="{part}"; filename="x.png"\r\n\r\n'
        body += head.encode() + path.read_bytes() + b"\r\n"
    options = json.dumps({"seed": seed})
    body += f'--{limit}\r\nContent-Disposition: form-data; name="options"\r\n\r\n{options}\r\n--{limit}--\r\n'.encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={limit}"}
    try:
        request = urllib.request.Request(f"{address}/v1/objects", body, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            data = answer.read()
            return str(answer.status) if answer.status != 200 or data[:4] == b"glTF" else "lost"
    except urllib.error.HTTPError as error:
        text = error.read()
        return str(error.code) if b'"error"' in text else "lost"
    except OSError:
        return "lost"
