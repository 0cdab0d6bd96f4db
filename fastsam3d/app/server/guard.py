"""Filters requests before the page's application: refuses all that the page does not need."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_PATH, LONGEST_QUERY, LONGEST_PART = 2048, 8192, 200
"""Largest lengths, in characters, of an address: its path, its query, and one part between slashes."""
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)
"""Content security policy: the page can load nothing from another address. Gradio itself needs inline scripts."""
_CLOSED = re.compile(r"/(file[=/]|proxy=|upload$|upload_progress|stream/|component_server|monitoring)", re.IGNORECASE)
"""Routes of Gradio that the page does not need: they read files, receive files, or download from other addresses."""
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """Refuses Gradio's routes for files and other addresses, large requests, and requests from other sites' pages.

    Gradio's answers allow pages on any port of this machine to read them, with the visitor's cookies. This class
    removes that permission. An exception in the application becomes a line in the log and an answer 500.

    Args:
        limit: largest size of a request, in bytes.
        events: number of values of each event, by the number of the event. An unknown event, or an event with another
            number of values, gets the answer 400, because Gradio would log a traceback.
    """

    def __init__(self, app: Any, limit: int, events: Mapping[int, int] | None = None) -> None:
        self._app, self._limit, self._events = app, limit, events or {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        if self._events and scope["method"] == "POST" and scope["path"].endswith("/queue/join"):
            body = await _body_of(receive, self._limit)
            if body is None or not self._is_event(body):
                await _refuse(send, 400, "This is no event of the page.")
                return
            receive = _replayed(body, receive)
        begun, taken = False, 0

        async def guarded(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = message.get("headers", [])
                own = [pair for pair in headers if not pair[0].lower().startswith(b"access-control-")]
                message = message | {"headers": [*own, *_HEADERS]}
            await send(message)

        async def bounded() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b"") or b"")
            # More bytes than the header says can only come from a broken server below. They are not read.
            return {"type": "http.disconnect"} if taken > self._limit else message

        try:
            await self._app(scope, bounded, guarded)
        except Exception as error:
            text = (str(error) or type(error).__name__).splitlines()[0][:200]
            logger.error("%s %.100r failed: %s: %s", scope["method"], scope["path"], type(error).__name__, text)
            logger.debug("its traceback", exc_info=True)
            if not begun:
                await _refuse(send, 500, "An error happened in the program.")

    def _is_event(self, body: bytes) -> bool:
        try:
            values = json.loads(body)
        except (ValueError, RecursionError):
            return False
        if not isinstance(values, dict) or not isinstance(values.get("data"), list):
            return False
        number = values.get("fn_index")
        return type(number) is int and self._events.get(number) == len(values["data"])

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        """Returns the status and the text for a request that is refused; None for other requests."""
        headers = dict(scope["headers"])
        path, length = scope["path"], headers.get(b"content-length")
        if len(path) > LONGEST_PATH or len(scope.get("query_string", b"")) > LONGEST_QUERY:
            return 414, "The address is too long."
        if any(len(part.encode("utf-8", "replace")) > LONGEST_PART for part in path.split("/")) or "\0" in path:
            return 414, "A part of the address is too long."
        if _CLOSED.search(path):
            return 403, "Not served here."
        if from_elsewhere(headers, scope["method"]):
            return 403, "Pages of other addresses cannot use this one."
        if b"transfer-encoding" in headers:
            return (400 if length is not None else 411), "Give the length, and send the request in one piece."
        if length is None and scope["method"] in ("POST", "PUT", "PATCH"):
            return 411, "The length is missing."
        if length is not None and (not length.isdigit() or len(length) > 15 or int(length) > self._limit):
            limit = f"{self._limit / 2**20:.0f} MiB"
            return 413, f"The file is too large: up to {limit} are taken. Make it smaller."
        return None


def from_elsewhere(headers: dict[bytes, bytes], method: str) -> bool:
    """Tells whether a page of another address sends a request that could change something here.

    Browsers say it in the header `Sec-Fetch-Site`, also behind a proxy. Older browsers only send `Origin`. That header
    is checked only on a loopback address, where no proxy changes the name.
    """
    if method in ("GET", "HEAD"):
        return False
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site.lower() in (b"cross-site", b"same-site")
    origin = headers.get(b"origin", b"").decode("latin-1")
    host = headers.get(b"host", b"").decode("latin-1").lower()
    if not origin:
        return False
    if origin.lower() == "null":
        return True
    try:
        page = urlsplit(origin)
        own = urlsplit(f"//{host}")
        return own.hostname in LOOPBACK and (page.hostname, page.port or 80) != (own.hostname, own.port or 80)
    except ValueError:  # not an address
        return True


async def _body_of(receive: Any, limit: int) -> bytes | None:
    """Reads the whole body of a request; None if it is too large, or if the other side closed the connection."""
    parts, more, size = [], True, 0
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > limit:
            return None
    return b"".join(parts)


def _replayed(body: bytes, receive: Any) -> Any:
    """Returns a receive function that first gives the body again, and then passes on further messages."""
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Any, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_HEADERS]})
    await send({"type": "http.response.body", "body": body})
