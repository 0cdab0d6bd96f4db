"""The service in one process: requests, jobs, files, limits, and what a client does wrong."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ball_pipeline import write_vase
from PIL import Image

from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.pages import API, PAGE
from fastsam3d.cluster.service.plain import plain_application
from fastsam3d.errors import UserError
from fastsam3d.jobs.objects import run_object
from fastsam3d.jobs.request import request_with

pytest.importorskip("fastapi", reason="fastapi is not installed here")
pytest.importorskip("httpx", reason="httpx is not installed here")
STEPS = {"inference_steps": 2}
SETTINGS = {"device": "cpu", "threads": 1, "formats": ["mesh"]}
SAMPLERS = {"ss_sampler": STEPS, "slat_sampler": STEPS}


@pytest.fixture
def vase(tmp_path: Path) -> Path:
    write_vase(tmp_path / "vase")
    return tmp_path / "vase"


@pytest.fixture
def serve(loads, tmp_path) -> Iterator[Callable[..., Any]]:
    """Starts a service; gives its client."""
    from fastapi.testclient import TestClient

    clients = []

    def serve(**options: Any) -> Any:
        options = {"store": str(tmp_path / "store"), "file_mib": 1.0, "megapixels": 1.0, "masks": 4} | options
        application = plain_application(ServeOptions(**options), request_with(samplers=SAMPLERS, **SETTINGS))
        clients.append(TestClient(application))
        return clients[-1].__enter__()

    yield serve
    for client in clients:
        client.__exit__(None, None, None)


def parts(vase: Path, **more: Any) -> dict[str, Any]:
    return {"picture": (vase / "image.png").open("rb"), "mask": (vase / "0.png").open("rb"), **more}


def finished(client: Any, job: dict[str, Any], within: float = 120.0) -> dict[str, Any]:
    end = time.monotonic() + within
    while job["status"] in ("queued", "running") and time.monotonic() < end:
        time.sleep(0.05)
        job = client.get(job["url"]).json()
    return job


def test_a_picture_and_a_mask_give_the_glb_of_the_command_line(serve, vase, tmp_path):
    client = serve()
    answer = client.post("/v1/objects", files=parts(vase), data={"options": '{"seed": 5}'}, params={"wait": 120})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "model/gltf-binary")
    where = {"image_path": str(vase / "image.png"), "mask_path": str(vase / "0.png"), "output_dir": str(tmp_path / "o")}
    alone = run_object(
        request_with(samplers=SAMPLERS, seed=5, name="object", export=["glb"], pointmap="none", **SETTINGS, **where)
    )
    assert answer.content == (tmp_path / "o" / "object.glb").read_bytes()
    assert alone.name == "object"
    job = client.get(answer.headers["location"]).json()
    assert (job["status"], list(job["files"])) == ("done", ["object.glb"])
    assert client.get(job["files"]["object.glb"]).content == answer.content
    assert not (tmp_path / "store" / job["id"] / "inputs").exists()


def test_a_request_that_does_not_wait_gets_a_job_whose_progress_is_told(serve, vase):
    client = serve()
    answer = client.post("/v1/objects", files=parts(vase), params={"wait": 0})
    assert answer.status_code == 202 and answer.json()["status"] in ("queued", "running")
    url = answer.json()["url"]
    with client.stream("GET", url, headers={"Accept": "text/event-stream"}) as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        lines = list(events.iter_lines())
    assert lines[-2].startswith("data: ") or lines[-1].startswith("data: ")
    assert "event: done" in lines
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404


def test_a_scene_gives_its_files(serve, vase):
    client = serve()
    masks = [("masks", (vase / f"{n}.png").open("rb")) for n in range(2)]
    files = [("picture", (vase / "image.png").open("rb")), *masks]
    job = finished(client, client.post("/v1/scenes", files=files, params={"wait": 0}).json())
    assert (job["status"], job["objects"], job["failed_objects"]) == ("done", 2, 0)
    assert {"scene.glb", "object_0.glb", "object_1.glb", "layout.json"} <= set(job["files"])
    assert str(vase.parent) not in client.get(job["url"]).text


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def bomb(side: int = 20_000) -> bytes:
    """A PNG of some bytes that promises many megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


GREY = png(np.full((48, 64, 3), 120, np.uint8))
DISC = np.zeros((48, 64), np.uint8)
DISC[10:30, 10:30] = 255
P, M = ("p.png", GREY), ("m.png", png(DISC))
OBJECT, SCENE = "/v1/objects", "/v1/scenes"
BAD = {
    "no mask": (OBJECT, [("picture", P)], {}, 422, "the part mask is missing"),
    "no picture": (OBJECT, [("mask", M)], {}, 422, "the part picture is missing"),
    "no masks": (SCENE, [("picture", P)], {}, 422, "the part masks is missing"),
    "masks twice": (SCENE, [("picture", P), ("masks", M), ("labels", M)], {}, 422, "both given"),
    "two pictures": (OBJECT, [("picture", P), ("picture", P), ("mask", M)], {}, 422, "2 files are called picture"),
    "too many masks": (SCENE, [("picture", P), *[("masks", M)] * 5], {}, 422, "5 files are called masks"),
    "unknown part": (OBJECT, [("picture", P), ("mask", M), ("image", P)], {}, 422, "'image' is not wanted"),
    "text for a picture": (OBJECT, [("mask", M)], {"picture": "x"}, 422, "'picture' is not wanted here, or is no file"),
    "a text file": (OBJECT, [("picture", ("p.txt", b"x")), ("mask", M)], {}, 422, "ends in .txt"),
    "no suffix": (OBJECT, [("picture", ("p", GREY)), ("mask", M)], {}, 422, "ends in nothing"),
    "a path": (OBJECT, [("picture", ("../../etc/passwd", b"x")), ("mask", M)], {}, 422, "ends in nothing"),
    "no image": (OBJECT, [("picture", ("p.png", b"not a picture")), ("mask", M)], {}, 422, "is not an image"),
    "cut off": (OBJECT, [("picture", ("p.png", GREY[:60])), ("mask", M)], {}, 422, "picture.png"),
    "a bomb": (OBJECT, [("picture", ("p.png", bomb())), ("mask", M)], {}, 422, "too large to be opened"),
    "a bomb as mask": (OBJECT, [("picture", P), ("mask", ("m.png", bomb(3000)))], {}, 422, "9.0 megapixels"),
    "an empty file": (OBJECT, [("picture", ("p.png", b"")), ("mask", M)], {}, 422, "picture.png"),
    "another size": (OBJECT, [("picture", P), ("mask", ("m.png", png(DISC[:20])))], {}, 422, "mask.png"),
    "an empty mask": (OBJECT, [("picture", P), ("mask", ("m.png", png(DISC * 0)))], {}, 422, "is empty"),
    "a pickle": (OBJECT, [("picture", P), ("mask", ("m.npy", b"\x80\x04."))], {}, 422, "array of numbers"),
    "an array of objects": (
        *(OBJECT, [("picture", P), ("mask", ("m.npy", array(np.array([{}], dtype=object))))], {}, 422),
        "array of numbers",
    ),
    "a map of another size": (
        *(OBJECT, [("picture", P), ("mask", M), ("pointmap", ("x.npy", array(np.ones((3, 3, 3)))))], {}, 422),
        "pointmap.npy",
    ),
    "options that are no JSON": (OBJECT, [("picture", P), ("mask", M)], {"options": "{"}, 422, "no JSON object"),
    "options that are a list": (OBJECT, [("picture", P), ("mask", M)], {"options": "[1]"}, 422, "no JSON object"),
    "unknown option": (OBJECT, [("picture", P), ("mask", M)], {"options": '{"sed": 1}'}, 422, "Did you mean seed"),
    "a path as option": (
        OBJECT,
        [("picture", P), ("mask", M)],
        {"options": '{"output_dir": "/"}'},
        422,
        "unknown option",
    ),
    "a seed": (OBJECT, [("picture", P), ("mask", M)], {"options": '{"seed": -1}'}, 422, "seed is -1"),
    "a format": (OBJECT, [("picture", P), ("mask", M)], {"options": '{"export": ["exe"]}'}, 422, "export exe"),
    "too many faces": (OBJECT, [("picture", P), ("mask", M)], {"options": '{"faces": 9999999}'}, 422, "takes up to"),
    "too large": (OBJECT, [("picture", ("p.png", b"x" * 2**21)), ("mask", M)], {}, 413, "more than 1 MiB"),
    "wait": (OBJECT + "?wait=soon", [("picture", P), ("mask", M)], {}, 400, "wait=soon is not possible"),
    "deep JSON": (OBJECT, [("picture", P), ("mask", M)], {"options": "[" * 60000}, 422, "no JSON object"),
}


def test_mistakes_of_a_client_are_told_in_a_sentence_and_leave_nothing(serve, tmp_path, loads):
    client = serve()
    for name, (path, files, data, code, said) in BAD.items():
        answer = client.post(path, files=files, data=data)
        assert answer.status_code == code, (name, answer.text)
        text = answer.json()["error"]
        assert said in text and "\n" not in text and str(tmp_path) not in text, (name, text)
    assert list((tmp_path / "store").iterdir()) == []
    assert len(BAD) >= 30


def test_requests_that_are_no_multipart_and_unknown_places_are_told(serve):
    client = serve()
    assert client.post("/v1/objects", json={}).status_code == 415
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/objects", content=b"nothing", headers=broken).status_code in (400, 422)
    assert client.post("/v1/objects", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    assert client.get("/v1/nothing").status_code == 404
    assert client.get("/v1/objects").status_code in (404, 405)
    for name in ("x", "0" * 32, "..%2f..%2fetc", "%00"):
        assert client.get(f"/v1/jobs/{name}").status_code == 404
    assert client.get(f"/v1/jobs/{'0' * 32}/files/..%2fjob.json").status_code == 404


def test_files_of_a_job_are_its_results_only(serve, vase):
    client = serve()
    answer = client.post("/v1/objects", files=parts(vase), params={"wait": 120})
    url = answer.headers["location"]
    for name in ("job.json", "state.json", "report.json", "..%2fstate.json", "inputs%2fpicture.png", "%2e%2e"):
        assert client.get(f"{url}/files/{name}").status_code == 404, name


def test_a_chunked_request_is_bounded_too(serve):
    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="p.png"\r\n\r\n'
        for _ in range(40):
            yield b"0" * 65536

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert serve().post("/v1/objects", content=body(), headers=headers).status_code == 413


def test_a_full_queue_refuses_and_says_when_to_come_again(serve, vase):
    client = serve(queue=1)
    first = client.post("/v1/objects", files=parts(vase), params={"wait": 0})
    second = client.post("/v1/objects", files=parts(vase), params={"wait": 0})
    assert (first.status_code, second.status_code) == (202, 429)
    assert int(second.headers["retry-after"]) >= 1 and "is busy" in second.json()["error"]
    assert finished(client, first.json())["status"] == "done"
    third = client.post("/v1/objects", files=parts(vase), params={"wait": 0})
    assert third.status_code == 202
    assert finished(client, third.json())["status"] == "done"


def test_a_job_that_takes_too_long_is_stopped(serve, vase):
    client = serve(seconds=1e-9)
    answer = client.post("/v1/objects", files=parts(vase), params={"wait": 120})
    assert answer.status_code == 422 and "was stopped" in answer.json()["error"]


def test_a_token_is_asked_for(serve, vase, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    client = serve(token_file=str(tmp_path / "token"), host="0.0.0.0")
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").status_code == 401
    wrong = {"Authorization": "Bearer 0123456789abcdeX"}
    assert client.post("/v1/objects", files=parts(vase), headers=wrong).status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200


def test_other_machines_need_a_token():
    with pytest.raises(UserError, match="lets other machines in: give token_file"):
        ServeOptions(host="0.0.0.0").check()
    ServeOptions(host="localhost").check()


def test_results_expire_and_the_store_is_bounded(serve, vase, tmp_path):
    client = serve(keep_minutes=0.01)
    answer = client.post("/v1/objects", files=parts(vase), params={"wait": 120})
    assert answer.status_code == 200
    end = time.monotonic() + 20
    while list((tmp_path / "store").iterdir()) and time.monotonic() < end:
        time.sleep(0.1)
    assert list((tmp_path / "store").iterdir()) == []
    assert client.get(answer.headers["location"]).status_code == 404


def test_jobs_of_a_service_that_was_killed_are_done_by_the_next(serve, vase, tmp_path):
    from fastsam3d.cluster.service.store import JobStore

    store = JobStore(tmp_path / "store")
    uploads = [("picture.png", (vase / "image.png").read_bytes()), ("mask.png", (vase / "0.png").read_bytes())]
    lost = store.create("object", {"export": ["glb"]}, uploads)
    store.accept(lost)
    store.update(lost, status="running", begun=1)
    poison = store.create("object", {"export": ["glb"]}, uploads)
    store.accept(poison)
    store.update(poison, status="running", begun=2)
    client = serve()
    assert finished(client, {"status": "queued", "url": f"/v1/jobs/{lost}"})["status"] == "done"
    job = finished(client, {"status": "queued", "url": f"/v1/jobs/{poison}"})
    assert job["status"] == "failed" and "2 workers died" in job["error"]


def test_health_metrics_and_the_description(serve, vase):
    client = serve()
    client.post("/v1/objects", files=parts(vase), params={"wait": 120})
    assert client.get("/readyz").json() == {"status": "ready"}
    text = client.get("/metrics").text
    assert 'fastsam3d_jobs_total{status="done"} 1' in text
    assert 'fastsam3d_requests_total{code="200"} 2' in text and "fastsam3d_jobs_open 0" in text
    assert client.get("/openapi.json").json() == json.loads(json.dumps(API))
    assert client.get("/docs").text == PAGE and "https://" not in PAGE


def test_the_description_names_every_route_of_the_application():
    from fastsam3d.cluster.service.application import ROUTES

    described = {(path.replace("{id}", "{name}"), m.upper()) for path, own in API["paths"].items() for m in own}
    there = {(path.replace("{file}", "{name}"), method) for path, method, _ in ROUTES}
    assert described == there - {("/openapi.json", "GET"), ("/docs", "GET")}
