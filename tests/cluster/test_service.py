"""The service in one process: requests, jobs, files, limits, and what a client does wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from service_requests import BAD, GREY, parts, png

from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.pages import API, PAGE
from fastsam3d.errors import UserError
from fastsam3d.jobs.objects import run_object
from fastsam3d.jobs.request import request_with

pytest.importorskip("fastapi", reason="fastapi is not installed here")
pytest.importorskip("httpx", reason="httpx is not installed here")
STEPS = {"inference_steps": 2}
SETTINGS = {"device": "cpu", "threads": 1, "formats": ["mesh"]}
SAMPLERS = {"ss_sampler": STEPS, "slat_sampler": STEPS}


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


def test_warnings_of_the_check_are_told_before_the_job_has_run(serve, vase, monkeypatch):
    monkeypatch.setattr("fastsam3d.cluster.service.receiving.check_inputs", lambda *_: ["the mask fills its box."])
    job = serve().post("/v1/objects", files=parts(vase), params={"wait": 0}).json()
    assert job["status"] in ("queued", "running") and job["warnings"] == ["the mask fills its box."]


def test_a_scene_gives_its_files(serve, vase):
    client = serve()
    masks = [("masks", (vase / f"{n}.png").open("rb")) for n in range(2)]
    files = [("picture", (vase / "image.png").open("rb")), *masks]
    job = finished(client, client.post("/v1/scenes", files=files, params={"wait": 0}).json())
    assert (job["status"], job["objects"], job["failed_objects"]) == ("done", 2, 0)
    assert {"scene.glb", "object_0.glb", "object_1.glb", "layout.json"} <= set(job["files"])
    assert str(vase.parent) not in client.get(job["url"]).text


def test_mistakes_of_a_client_are_told_in_a_sentence_and_leave_nothing(serve, tmp_path, loads):
    client = serve()
    for name, (path, files, data, code, said) in BAD.items():
        answer = client.post(path, files=files, data=data)
        assert answer.status_code == code, (name, answer.text)
        text = answer.json()["error"]
        assert said in text and "\n" not in text and str(tmp_path) not in text, (name, text)
    assert list((tmp_path / "store").iterdir()) == []
    assert len(BAD) >= 30


def test_labels_are_counted_before_their_masks_are_made(serve, monkeypatch):
    def no_mask(*_: object) -> None:
        raise AssertionError("a mask was made")

    monkeypatch.setattr("fastsam3d.jobs.mask_sets.without_specks", no_mask)
    stripes = np.repeat(np.arange(6, dtype=np.uint8) * 10, 8)[:, None] * np.ones((1, 64), np.uint8)  # five labels
    files = [("picture", ("p.png", GREY)), ("labels", ("l.png", png(stripes)))]
    answer = serve().post("/v1/scenes", files=files)
    assert answer.status_code == 422
    assert answer.json()["error"] == "there are 5 masks in labels.png: up to 4 are taken."


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


def test_a_job_that_cannot_be_stored_is_refused_and_the_worker_goes_on(serve, vase, tmp_path, monkeypatch):
    from fastsam3d.cluster.service.store import JobStore

    client, update, failed = serve(), JobStore.update, []

    def failing(store: JobStore, name: str, **values: Any) -> None:
        if values.get("status") in ("queued", "running") and values["status"] not in failed:
            failed.append(values["status"])
            raise UserError("the service cannot store the job (No space left on device).")
        update(store, name, **values)

    monkeypatch.setattr(JobStore, "update", failing)
    refused = client.post("/v1/objects", files=parts(vase), params={"wait": 0})
    assert refused.status_code == 503 and "No space left" in refused.json()["error"]
    assert list((tmp_path / "store").iterdir()) == []
    job = client.post("/v1/objects", files=parts(vase), params={"wait": 0}).json()
    assert finished(client, job)["status"] == "done"
    assert failed == ["queued", "running"]


def test_a_pipeline_that_cannot_be_loaded_is_told_without_paths(serve, vase, monkeypatch):
    def load(model: str, **options: object) -> None:
        raise UserError("there are no weights in /secret.")

    monkeypatch.setattr("fastsam3d.sam3d.checkpoints.loading.load_pipeline", load)
    client = serve()
    end = time.monotonic() + 60
    while "cannot be loaded" not in client.get("/readyz").text and time.monotonic() < end:
        time.sleep(0.05)
    for answer in (client.get("/readyz"), client.post("/v1/objects", files=parts(vase))):
        assert answer.status_code == 503 and "/secret" not in answer.text
        assert answer.json()["error"] == "the pipeline cannot be loaded: the log of the service says why."


def test_a_length_of_endless_digits_is_too_large(serve):
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": "9" * 5000}
    assert serve().post("/v1/objects", content=b"", headers=headers).status_code == 413


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


def test_jobs_of_an_earlier_service_go_on_in_the_order_in_which_they_came(tmp_path):
    from types import SimpleNamespace

    from fastsam3d.basics.files import write_json
    from fastsam3d.cluster.service.accepting import Service
    from fastsam3d.cluster.service.store import JobStore

    store, given = JobStore(tmp_path), []
    for name, created in (("a" * 32, 3.0), ("b" * 32, 1.0), ("c" * 32, 2.0)):
        write_json(tmp_path / name / "job.json", {"created": created})
        store.accept(name)
    Service(store, SimpleNamespace(submit=given.append), request_with(**SETTINGS), ServeOptions())
    assert [name[0] for name in given] == ["b", "c", "a"]


def test_a_service_that_ends_begins_no_other_job():
    from threading import Event, Timer
    from types import SimpleNamespace

    from fastsam3d.cluster.service.running import LocalExecutor

    begun, go, ran = Event(), Event(), []

    def run(name: str) -> None:
        ran.append(name)
        begun.set()
        go.wait(10)

    executor = LocalExecutor(lambda: SimpleNamespace(run=run, close=lambda: ran.append("closed")))
    executor.submit("first")
    executor.submit("second")
    assert begun.wait(10)
    Timer(0.3, go.set).start()  # the first one ends after the service was told to end
    executor.close()
    assert ran == ["first", "closed"]


def test_a_running_job_that_is_deleted_at_its_end_goes(serve, vase, tmp_path, monkeypatch):
    """The mark appears after the worker's look before the end, and the client's look came before the end."""
    from fastsam3d.cluster.service.store import CANCEL, JobStore

    client, update = serve(), JobStore.update

    def marked(store: JobStore, name: str, **values: Any) -> None:
        if values.get("status") == "done":
            (store.path / name / CANCEL).touch()
        update(store, name, **values)

    monkeypatch.setattr(JobStore, "update", marked)
    job = client.post("/v1/objects", files=parts(vase), params={"wait": 0}).json()
    end = time.monotonic() + 60
    while list((tmp_path / "store").iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert client.get(job["url"]).status_code == 404 and list((tmp_path / "store").iterdir()) == []


def test_a_deleted_job_whose_worker_died_is_not_computed(serve, vase, tmp_path):
    from fastsam3d.cluster.service.store import CANCEL, JobStore

    store = JobStore(tmp_path / "store")
    name = store.create("object", {"export": ["glb"]}, [("picture.png", (vase / "image.png").read_bytes())])
    store.accept(name)
    store.update(name, status="running", begun=2)
    (store.path / name / CANCEL).touch()
    serve()
    end = time.monotonic() + 60
    while (store.path / name).exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not (store.path / name).exists()


def test_counts_keep_all_their_digits():
    from fastsam3d.cluster.service.metrics import Metrics

    metrics = Metrics()
    metrics.ended({"status": "done", "seconds": 0.5, "objects": 1234567})
    text = metrics.text(0, 1, 4294967297, {200: 7654321})
    assert "fastsam3d_objects_total 1234567\n" in text and "fastsam3d_store_bytes 4294967297\n" in text
    assert "fastsam3d_job_seconds_total 0.5\n" in text and 'requests_total{code="200"} 7654321\n' in text


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
