"""A service and its clients, for the load test of `scaling.py`."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fastsam3d.cluster.batch.running import on_one_thread
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.plain import plain_application
from fastsam3d.jobs.request import request_with

PATIENCE = 300.0
"""Seconds after which a request without an answer counts as lost."""


@contextlib.contextmanager
def running(engine: str, steps: int, folder: str) -> Iterator[str]:
    """A service inside a `with` block; yields its address once a worker is loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ServeOptions(port=port, store=folder, queue=32, wait=PATIENCE)
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
    _until_ready(f"http://127.0.0.1:{port}")
    yield f"http://127.0.0.1:{port}"
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
    address: str, end: float, photo: Path, answers: Counter[str], latencies: list[float], lock: threading.Lock
) -> None:
    """One client: asks again and again until `end`, and counts how each request ended."""
    seed = 0
    while time.monotonic() < end:
        seed += 1
        start = time.monotonic()
        kind = _asked(address, photo, seed)
        with lock:
            answers[kind] += 1
            if kind == "200":
                latencies.append(time.monotonic() - start)
        if kind == "429":
            time.sleep(0.5)


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
