"""Strangers' requests to the page: refused shortly, without a traceback in the log, and at nobody else's cost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastsam3d.app.server.guard import Guard, from_elsewhere
from fastsam3d.app.server.server import build_app
from fastsam3d.app.server.upload_store import Intake, TooManyUploads
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.app.visitors.visitors import Visitors
from fastsam3d.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")
NEIGHBOUR = {"origin": "http://localhost:9999"}


@pytest.fixture
def client(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    pytest.importorskip("gradio", reason="the page needs Gradio (extra demo)")
    from starlette.testclient import TestClient

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    with TestClient(build_app(studio), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def test_pages_on_other_ports_of_this_machine_get_no_leave(client) -> None:
    for address in ("/", "/config", "/gradio_api/info", "/healthz"):
        answer = client.get(address, headers=NEIGHBOUR)
        assert not [name for name in answer.headers if name.startswith("access-control-")], address
    asked = client.options("/config", headers=NEIGHBOUR | {"access-control-request-method": "POST"})
    assert asked.status_code == 403 and "access-control-allow-origin" not in asked.headers
    events = client.get("/config").json()["dependencies"]
    number = next(event["id"] for event in events if event["backend_fn"] and not event["inputs"])
    payload = {"data": [], "fn_index": number, "session_hash": "x"}
    assert client.post("/gradio_api/queue/join", json=payload, headers=NEIGHBOUR).status_code == 403
    own = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}
    assert client.post("/gradio_api/queue/join", json=payload, headers=own).status_code == 200


@pytest.mark.parametrize(
    ("headers", "elsewhere"),
    [
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, False),
        ({"host": "localhost:7860", "origin": "http://localhost:7861"}, True),
        ({"host": "127.0.0.1:7860", "origin": "http://localhost:7860"}, True),
        ({"host": "localhost:7860", "origin": "null"}, True),
        ({"host": "localhost:7860", "origin": "http://[broken"}, True),
        ({"host": "localhost:7860", "sec-fetch-site": "same-site"}, True),
        ({"host": "localhost:7860", "sec-fetch-site": "cross-site"}, True),
        # A proxy that gives the request another host: the browser's own word counts.
        ({"host": "127.0.0.1", "origin": "https://demo.example.org", "sec-fetch-site": "same-origin"}, False),
        ({"host": "localhost:7860"}, False),
    ],
)
def test_where_a_request_comes_from(headers: dict[str, str], elsewhere: bool) -> None:
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    assert from_elsewhere(raw, "POST") is elsewhere
    assert from_elsewhere(raw, "GET") is False


def test_strange_requests_are_answered_shortly(client, caplog: pytest.LogCaptureFixture, capfd) -> None:
    join = "/gradio_api/queue/join"
    for body in (
        {"data": [], "fn_index": 2, "session_hash": "a"},
        {"data": None, "fn_index": 0, "session_hash": "a"},
        {"data": [], "fn_index": 999, "session_hash": "a"},
        {"data": [], "fn_index": True, "session_hash": "a"},
        {"data": "x" * 100, "fn_index": "0"},
        [1],
    ):
        assert client.post(join, json=body).status_code == 400, body
    assert client.post(join, content=b"[" * 100_000).status_code == 400
    wrong = ["no preset", "x", None, {}, [], "q", "w", "z", {}, "y"]
    files = ["ten", [], 7]
    half = (["balanced", 3, 1, True, True, "q", 9999, *files], ["balanced", {}, 1, True, True, 0, 1, *files])
    for values in (wrong, *half):
        run = next(item for item in client.get("/config").json()["dependencies"] if len(item["inputs"]) == 10)
        answer = client.post(join, json={"data": values, "fn_index": run["id"], "session_hash": "a"})
        assert answer.status_code == 200
        with client.stream("GET", "/gradio_api/queue/data?session_hash=a") as stream:
            assert any("process_completed" in line for line in stream.iter_lines())
    for address in ("/" + "a" * 5000, "/static/" + "b" * 300, "/config?" + "c" * 9000, "/assets/%00"):
        assert client.get(address).status_code == 414, address[:20]
    shown = capfd.readouterr()
    assert "Traceback" not in shown.err + shown.out + caplog.text


def test_a_length_together_with_chunks_is_refused(client) -> None:
    headers = {"x-file-name": "a.png", "content-length": "4", "transfer-encoding": "chunked"}
    assert client.post("/uploads", content=b"aaaa", headers=headers).status_code == 400

    def chunks() -> Iterator[bytes]:
        yield b"a"

    assert client.post("/uploads", content=chunks(), headers={"x-file-name": "a.png"}).status_code == 411


def called(guard: Guard, messages: list[dict], headers: list[tuple[bytes, bytes]], path: str = "/x") -> list[dict]:
    """What the guard sends for a request."""
    sent: list[dict] = []
    left = list(messages)

    async def receive() -> dict:
        return left.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(guard({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send))
    return sent


def test_a_body_longer_than_its_length_is_cut() -> None:
    seen = []

    async def app(scope, receive, send) -> None:
        while (message := await receive())["type"] == "http.request":
            seen.append(message["body"])

    part = {"type": "http.request", "body": b"x" * 40, "more_body": True}
    called(Guard(app, 100), [part] * 9, [(b"content-length", b"50")])
    assert seen == [part["body"]] * 2


def test_an_exception_inside_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send) -> None:
        raise KeyError("inside")

    with caplog.at_level(logging.INFO):
        (start, _) = called(Guard(app, 100), [], [(b"content-length", b"0")])
    assert start["status"] == 500
    assert [record.exc_info for record in caplog.records] == [None]


async def slow(parts: int, seconds: float) -> AsyncIterator[bytes]:
    for _ in range(parts):
        await asyncio.sleep(seconds)
        yield b"x"


def test_uploads_in_flight_are_limited_in_number_and_time(tmp_path: Path) -> None:
    intake = Intake(tmp_path, 100, in_flight=2, time_limit=0.5)

    async def several() -> list:
        return await asyncio.gather(*(intake.receive("a.png", slow(3, 0.02)) for _ in range(4)), return_exceptions=True)

    results = asyncio.run(several())
    assert sorted(type(result).__name__ for result in results) == ["TooManyUploads"] * 2 + ["str"] * 2
    assert issubclass(TooManyUploads, UserError)
    begin = time.monotonic()
    with pytest.raises(UserError, match="took more than"):
        asyncio.run(intake.receive("b.png", slow(100, 0.1)))
    assert time.monotonic() - begin < 5
    assert not list(tmp_path.rglob("b.png"))
    assert isinstance(asyncio.run(intake.receive("c.png", slow(1, 0))), str)  # the places are free again


def test_strangers_cannot_evict_a_result(studio: Studio) -> None:
    visitors = Visitors(studio, limit=4)
    visitor = visitors.session("visitor")
    visitor.finished = SimpleNamespace()  # type: ignore[assignment]
    for number in range(100):
        visitors.session(f"stranger {number}")
    assert visitors.session("visitor") is visitor
    assert len(visitors) == 5
    # Results make room for results.
    for number in range(4):
        visitors.session(f"other {number}").finished = SimpleNamespace()  # type: ignore[assignment]
    visitors.session("stranger")
    assert visitors.session("visitor") is not visitor
