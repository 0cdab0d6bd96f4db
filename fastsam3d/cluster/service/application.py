"""The service as a FastAPI application: requests become jobs of a store, and an executor runs them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fastsam3d.basics.optional import optional_module
from fastsam3d.cluster.service.accepting import NOT_LOADED, Service
from fastsam3d.cluster.service.guarding import Guarded, Refused
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.pages import API, PAGE
from fastsam3d.cluster.service.receiving import created_job, seconds_to_wait
from fastsam3d.cluster.service.store import DONE, ENDED, FAILED
from fastsam3d.cluster.service.uploads import described
from fastsam3d.errors import UserError

LOOK = 0.1
"""Seconds between two looks at the state of a job that somebody waits for."""


def create_application(make: Callable[[], Service], options: ServeOptions) -> Any:
    """Makes the ASGI application.

    Args:
        make: makes the service when the application starts; called once.

    Raises:
        UserError: FastAPI is not installed.
    """
    for module in ("fastapi", "python_multipart"):
        optional_module(module, "the service", "ray")
    from fastapi import FastAPI

    @contextlib.asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[None]:
        service = application.state.service = await asyncio.to_thread(make)
        expiring = asyncio.create_task(service.expire())
        yield
        expiring.cancel()
        await asyncio.to_thread(service.executor.close)

    application = FastAPI(title="fastsam3d", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    for path, method, handler in ROUTES:
        # Plain routes: nothing is parsed before the handler has looked at sizes.
        application.add_route(path, handler, methods=[method])
    application.add_exception_handler(Refused, _refused)
    application.add_exception_handler(404, _unknown)
    application.add_exception_handler(405, _unknown)
    return Guarded(application, options.token(), int(options.file_mib * 2**20))


async def _refused(_request: Any, error: Any) -> Any:
    return _failed(error.status, error.text, error.headers)


async def _unknown(request: Any, _error: Any) -> Any:
    what = f"{request.method} {request.url.path[:80]}"
    return _failed(404, f"{what} is nothing that there is: GET /openapi.json tells what there is.")


def _failed(status: int, text: str, headers: Mapping[str, str] | None = None) -> Any:
    from fastapi.responses import JSONResponse

    # A text of the client may hold signs that are no text.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return JSONResponse({"error": text}, status, headers)


def _service(request: Any) -> Service:
    found: Service = request.app.state.service
    return found


async def _object(request: Any) -> Any:
    return await _submitted(request, "object")


async def _scene(request: Any) -> Any:
    return await _submitted(request, "scene")


async def _submitted(request: Any, kind: str) -> Any:
    from fastapi.responses import FileResponse, JSONResponse

    service = _service(request)
    wait = seconds_to_wait(request.query_params.get("wait"), service.options.wait)
    service.place()
    try:
        name = await created_job(request, service, kind)
        service.accept(name)
    finally:
        service.free()
    state = await _ended(service, name, wait)
    headers = {"Location": f"/v1/jobs/{name}"}
    if state["status"] == FAILED:
        return _failed(422, str(state["error"]), headers)
    if kind == "object" and "object.glb" in state.get("files", {}):
        path = service.store.result(name, "object.glb")
        return FileResponse(path, media_type="model/gltf-binary", headers=headers)
    return JSONResponse(described(state, name), 200 if state["status"] == DONE else 202, headers)


async def _job(request: Any) -> Any:
    from fastapi.responses import JSONResponse, StreamingResponse

    service, name = _service(request), request.path_params["name"]
    state = _known(service, name)
    if "text/event-stream" in request.headers.get("accept", ""):
        return StreamingResponse(_events(service, name), media_type="text/event-stream")
    return JSONResponse(described(state, name))


async def _file(request: Any) -> Any:
    from fastapi.responses import FileResponse

    service, name, file = _service(request), request.path_params["name"], request.path_params["file"]
    _known(service, name)
    try:
        path = service.store.result(name, file)
    except UserError as error:
        raise Refused(404, str(error)) from None
    kind = "model/gltf-binary" if path.suffix == ".glb" else None
    return FileResponse(path, media_type=kind, filename=file)


async def _delete(request: Any) -> Any:
    from fastapi.responses import Response

    service, name = _service(request), request.path_params["name"]
    try:
        await asyncio.to_thread(service.store.remove, name)
    except UserError as error:
        raise Refused(404, str(error)) from None
    return Response(status_code=204)


async def _health(_request: Any) -> Any:
    from fastapi.responses import JSONResponse

    return JSONResponse({"status": "ok"})


async def _ready(request: Any) -> Any:
    from fastapi.responses import JSONResponse

    executor = _service(request).executor
    if executor.problem is not None:
        return _failed(503, NOT_LOADED)
    if not executor.ready():
        return _failed(503, "the pipeline is being loaded.", {"Retry-After": "5"})
    return JSONResponse({"status": "ready"})


async def _metrics(request: Any) -> Any:
    from fastapi.responses import PlainTextResponse

    service = _service(request)
    waiting = service.open_jobs()
    jobs, used = await asyncio.to_thread(service.store.used)
    return PlainTextResponse(service.metrics.text(waiting, jobs, used, request.scope["answers"]))


async def _api(_request: Any) -> Any:
    from fastapi.responses import JSONResponse

    return JSONResponse(API)


async def _page(_request: Any) -> Any:
    from fastapi.responses import HTMLResponse

    return HTMLResponse(PAGE)


ROUTES = (
    ("/v1/objects", "POST", _object),
    ("/v1/scenes", "POST", _scene),
    ("/v1/jobs/{name}", "GET", _job),
    ("/v1/jobs/{name}", "DELETE", _delete),
    ("/v1/jobs/{name}/files/{file}", "GET", _file),
    ("/healthz", "GET", _health),
    ("/readyz", "GET", _ready),
    ("/metrics", "GET", _metrics),
    ("/openapi.json", "GET", _api),
    ("/docs", "GET", _page),
)


def _known(service: Service, name: str) -> dict[str, Any]:
    try:
        return service.store.state(name)
    except UserError as error:
        raise Refused(404, str(error)) from None


async def _ended(service: Service, name: str, wait: float) -> dict[str, Any]:
    """The state of a job once it has ended, or after some seconds."""
    end = time.monotonic() + wait
    while True:
        state = _known(service, name)
        if state["status"] in ENDED or time.monotonic() >= end:
            return state
        await asyncio.sleep(LOOK)


async def _events(service: Service, name: str) -> AsyncIterator[str]:
    """The states of a job as server-sent events, until it has ended."""
    before: str | None = None
    while True:
        try:
            state = service.store.state(name)
        except UserError:
            yield "event: deleted\ndata: {}\n\n"
            return
        text = json.dumps(described(state, name))
        if text != before:
            before = text
            yield f"event: {state['status']}\ndata: {text}\n\n"
        if state["status"] in ENDED:
            return
        await asyncio.sleep(LOOK)
