"""The demo as a web application: it serves the page and the result files, and no other file of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastsam3d.app.page.fragments import RESULTS
from fastsam3d.app.server.guard import LOOPBACK, Guard
from fastsam3d.app.server.upload_store import TooManyUploads
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.errors import UserError

UPLOADS = "uploads"
MEDIA_TYPES = {
    ".glb": "model/gltf-binary",
    ".png": "image/png",
    ".json": "application/json",
    ".zip": "application/zip",
}


def build_app(studio: Studio, host: str = "127.0.0.1") -> Any:
    """Builds the application, for an ASGI server.

    Args:
        studio: the objects that all visitors share.
        host: the address of the server. On a loopback address, only requests to a loopback name are answered. So a web
            site cannot reach the demo through a visitor's browser by its own domain name.

    Raises:
        UserError: Gradio is not installed or too old.
    """
    gradio = require_gradio()
    from fastapi import FastAPI
    from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from fastsam3d.app.page.page import appearance, build_page

    app = FastAPI(title="fastsam3d demo", docs_url=None, redoc_url=None, openapi_url=None)

    def result(request: Any) -> Any:
        found = result_file(studio.folder, request.path_params["path"])
        if found is None:
            return PlainTextResponse("There is no such file. Results are removed after some time.", 404)
        return FileResponse(found, media_type=MEDIA_TYPES.get(found.suffix, "application/octet-stream"))

    async def upload(request: Any) -> Any:
        # Only a page of this server can send this header: for other servers a browser asks for permission first.
        name = request.headers.get("x-file-name")
        if name is None:
            return PlainTextResponse("There is no file name.", 400)
        try:
            token = await studio.intake.receive(unquote(name), request.stream())
        except TooManyUploads as error:
            return PlainTextResponse(str(error), 429)
        except UserError as error:
            return PlainTextResponse(str(error), 413)
        return JSONResponse({"token": token})

    app.add_route(f"/{RESULTS}/{{path:path}}", result, methods=["GET"])
    app.add_route(f"/{UPLOADS}", upload, methods=["POST"])
    app.add_route("/healthz", lambda request: JSONResponse({"status": "ok"}), methods=["GET"])
    page = build_page(studio)
    events = {number: len(function.inputs) for number, function in page.fns.items()}
    app.add_middleware(Guard, limit=studio.limits.file_bytes + 2**16, events=events)
    if host in LOOPBACK:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", "::1"])
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        allowed_paths=[],
        blocked_paths=[],
        show_error=False,
        max_file_size=studio.limits.file_bytes,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
        run_history=False,
        footer_links=[],
        **appearance(),
    )
    # Gradio checks paths of files in a visitor's events only in applications that it has launched itself.
    page.has_launched = True
    return app


def result_file(folder: Path, path: str) -> Path | None:
    """Finds the result file of an address; None if there is no such file.

    The path is `visitor/result/file` or `visitor/result/run/file` below the studio's folder. `..` and links are
    refused.
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


def require_gradio() -> Any:
    """Imports Gradio and returns the module.

    Raises:
        UserError: Gradio is not installed, or is too old for the page.
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
