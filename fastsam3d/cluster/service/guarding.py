"""Checks requests before the application sees them: token and size. Counts the answers."""

from __future__ import annotations

import hmac
import json
from collections import Counter
from typing import Any

OPEN = ("/healthz", "/readyz")
"""Paths that need no token: whoever watches over the service asks them."""


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        text: a sentence for the client.
        headers: of the answer.
    """

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


class TooLarge(Refused):
    """A request with more bytes than allowed."""


class Guarded:
    """An ASGI application that checks requests for another one.

    The other application finds the number of answers by status in `scope["answers"]`.

    Args:
        application: handles the requests that pass.
        token: requests must contain `Authorization: Bearer TOKEN`; None: no token.
        most_bytes: largest number of bytes of a request.
    """

    def __init__(self, application: Any, token: str | None, most_bytes: int) -> None:
        self.application, self._token, self._most = application, token, most_bytes
        self.answers: Counter[int] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
            await send(message)

        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        wanted = f"Bearer {self._token}".encode()
        if self._token is not None and scope["path"] not in OPEN and not hmac.compare_digest(given, wanted):
            await _answer(told, 401, "this service needs a token: send Authorization: Bearer TOKEN.")
            return
        text = f"the request has more than {self._most / 2**20:g} MiB: make its pictures smaller."
        length = headers.get(b"content-length", b"0")
        # Python refuses to read a number of thousands of digits.
        if not length.isdigit() or len(length) > 18 or int(length) > self._most:
            await _answer(told, 413, text)
            return
        read = 0

        async def bounded() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise TooLarge(413, text)
            return message

        await self.application(scope | {"answers": self.answers}, bounded, told)


async def _answer(send: Any, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    else:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
