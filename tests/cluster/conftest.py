"""A folder with photo folders, and a batch whose pipeline takes a fraction of a second."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ball_pipeline import ball_pipeline, write_vase
from service_requests import LIMITS

from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.cluster.batch.running import BatchResult, run_batch
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.plain import plain_application
from fastsam3d.jobs.request import request_with
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

STEPS = {"inference_steps": 2}
SAMPLERS = {"ss_sampler": STEPS, "slat_sampler": STEPS}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """`photos/a`, `photos/b` with three masks each, and `photos/notes.txt`."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        write_vase(folder / name)
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every load gives a tiny pipeline; the models that were loaded are recorded."""
    models: list[str] = []

    def load(model: str, **options: object) -> Pipeline:
        models.append(model)
        return ball_pipeline()

    monkeypatch.setattr("fastsam3d.sam3d.checkpoints.loading.load_pipeline", load)
    return models


@pytest.fixture
def batch(loads: list[str], tmp_path: Path) -> Callable[..., BatchResult]:
    """Runs a batch in this process, of two steps a stage and without previews, into `out`."""

    def batch(source: str | Path, output: str = "out", resume: bool = True, **values: Any) -> BatchResult:
        where = output if "://" in output else str(tmp_path / output)
        options = BatchOptions(input=str(source), output=where, engine="inline", resume=resume)
        quick = {"device": "cpu", "preview": False, "export": ["glb"], "formats": ["mesh"]}
        return run_batch(options, request_with(samplers=SAMPLERS, **quick | values))

    return batch


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    """The rows of the ledger of `out` by name, the last of each; fails where a name has two rows of status ok."""

    def rows(output: str = "out") -> dict[str, dict[str, Any]]:
        text = (tmp_path / output / ".batch" / "rows.jsonl").read_text()
        return {row["name"]: row for row in map(json.loads, text.splitlines())}

    return rows


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """Address of a local server that speaks S3. This process and its children find it by their environment."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed here")
    server = pytest.importorskip("moto.server", reason="moto is not installed here: pip install 'moto[server]'")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it has a line for every request
    running.start()
    host, port = running.get_host_and_port()
    values = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in values.items():
            patch.setenv(key, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield values["AWS_ENDPOINT_URL"]
        s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.fixture
def bucket(s3_server: str) -> str:
    """The address of an empty bucket."""
    import s3fs

    name = f"photos-{secrets.token_hex(4)}"  # the server keeps buckets as long as the process lives
    s3fs.S3FileSystem(endpoint_url=s3_server).mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def vase(tmp_path: Path) -> Path:
    """A photo folder."""
    write_vase(tmp_path / "vase")
    return tmp_path / "vase"


@pytest.fixture
def serve(loads: list[str], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a service in this process; gives its client."""
    from fastapi.testclient import TestClient

    clients = []

    def serve(**options: Any) -> Any:
        options = {"store": str(tmp_path / "store")} | LIMITS | options
        settings = {"device": "cpu", "threads": 1, "formats": ["mesh"]}
        application = plain_application(ServeOptions(**options), request_with(samplers=SAMPLERS, **settings))
        clients.append(TestClient(application))
        return clients[-1].__enter__()

    yield serve
    for client in clients:
        client.__exit__(None, None, None)
