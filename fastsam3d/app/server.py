"""The demo as a web application: the page, the result files, and nothing else of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastsam3d.app.fragments import RESULTS
from fastsam3d.app.session import Studio
from fastsam3d.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MEDIA_TYPES = {
    ".glb": "model/gltf-binary",
    ".png": "image/png",
    ".json": "application/json",
    ".zip": "application/zip",
}
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)
"""Content security policy: the page can load nothing from another address. Gradio itself needs inline scripts."""
_FETCHES = re.compile(r"/(file=https?:|proxy=)", re.IGNORECASE)


def build_app(studio: Studio, host: str = "127.0.0.1") -> Any:
    """The application, for an ASGI server.

    Args:
        studio: what all visitors share.
        host: the address that it will be served at; on a loopback address only requests for one are answered, so
            that no web site can reach the demo through a visitor's browser under a name of its own.

    Raises:
        UserError: Gradio is not installed or too old.
    """
    gradio = require_gradio()
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from fastsam3d.app.page import appearance, build_page

    app = FastAPI(title="fastsam3d demo", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get(f"/{RESULTS}/{{path:path}}")
    def result(path: str) -> FileResponse:
        found = result_file(studio.folder, path)
        if found is None:
            raise HTTPException(404, "There is no such file; results are kept for a while only.")
        return FileResponse(found, media_type=MEDIA_TYPES.get(found.suffix, "application/octet-stream"))

    @app.get("/healthz")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    app.add_middleware(Guard, limit=studio.limits.file_bytes + 2**16)
    if host in LOOPBACK:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", "::1"])
    gradio.mount_gradio_app(
        app,
        build_page(studio),
        path="/",
        allowed_paths=[],
        blocked_paths=[],
        show_error=True,
        max_file_size=studio.limits.file_bytes,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
        run_history=False,
        footer_links=[],
        **appearance(),
    )
    return app


def result_file(folder: Path, path: str) -> Path | None:
    """The file of an address below the results, or None where it is none.

    Three parts at most, `visitor/result/run/file` below the studio's folder, no step upwards, no link.
    """
    parts = path.split("/")
    if not 3 <= len(parts) <= 4 or any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        return None
    root = folder.resolve()
    found = root.joinpath(*parts)
    try:
        if found.resolve() != found or not found.is_file():
            return None
    except OSError:
        return None
    return found


class Guard:
    """Refuses what the demo has no use for: requests that make the server fetch other addresses, and large ones."""

    def __init__(self, app: Any, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if _FETCHES.search(scope["path"]) or not length.isdigit():
            await _refuse(send, 403, "Not served here.")
        elif int(length) > self._limit:
            await _refuse(send, 413, "The file is too large.")
        else:

            async def guarded(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
                await send(message)

            await self._app(scope, receive, guarded)


_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


async def _refuse(send: Any, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def require_gradio() -> Any:
    """The module.

    Raises:
        UserError: it is not installed, or older than what the page needs.
    """
    try:
        import gradio
    except ImportError:
        raise UserError("The demo needs Gradio, which is not installed: pip install 'fastsam3d[demo]'.") from None
    if int(gradio.__version__.partition(".")[0]) < 6:
        raise UserError(
            f"The demo needs Gradio 6, here is {gradio.__version__}: pip install --upgrade 'fastsam3d[demo]'."
        )
    return gradio
