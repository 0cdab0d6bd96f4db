"""The client of the service, against servers that answer in unusual ways."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fastsam3d.cluster.service.client import Client
from fastsam3d.errors import UserError

JOB = b'{"id": "x", "url": "/v1/jobs/x", "status": "done", "files": {}}'


@contextmanager
def server(answers: list[tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """The address of a server that gives these answers in turn: status, headers, body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, headers, body = answers.pop(0)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("picture.png", "mask.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path / "picture.png", tmp_path / "mask.png"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {}, b"<html>"), "is not this service"),
        ((200, {}, b"[]"), "is not this service"),
        ((200, {"Content-Length": "90"}, b"cut off"), "no service answers at"),
        ((422, {}, b'{"error": "the mask is empty."}'), "the mask is empty"),
        ((500, {}, b"defect"), "the service answered 500"),
        ((200, {}, JOB), "the job made no GLB"),
    ],
)
def test_other_answers_are_errors_in_a_sentence(files, answer, said):
    with server([answer]) as address, pytest.raises(UserError, match=said):
        Client(address).object(*files)


def test_a_date_in_retry_after_is_a_second(files, tmp_path):
    busy = 503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"{}"
    with server([busy, (200, {}, JOB)]) as address:
        assert Client(address).scene(files[0], [files[1]], tmp_path / "out") == []


def test_an_address_without_http_and_a_missing_file_are_told(files):
    with pytest.raises(UserError, match=r"127\.0\.0\.1:8000 is not an address"):
        Client("127.0.0.1:8000").object(*files)
    with pytest.raises(UserError, match=r"missing\.png cannot be read"):
        Client("http://127.0.0.1:1").object(files[0].with_name("missing.png"), files[1])
    with pytest.raises(UserError, match="no service answers at"):
        Client("http://127.0.0.1:1").object(*files)
