"""The description of the service for programs (OpenAPI 3.1), and the same as a page without foreign parts."""

from __future__ import annotations

import html
from typing import Any

from fastsam3d.basics.version import __version__
from fastsam3d.cluster.service.options import CHOSEN

_FILE = {"type": "string", "format": "binary"}
_JOB = {"$ref": "#/components/schemas/Job"}
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[a-z0-9]{32}$"}}
_OPTIONS = f"a JSON object with some of {', '.join(CHOSEN)}"


def _answer(text: str, schema: dict[str, Any] | None = None, kind: str = "application/json") -> dict[str, Any]:
    return {"description": text} | ({"content": {kind: {"schema": schema}}} if schema else {})


_ERRORS = {
    "400": "the request or its wait cannot be read",
    "401": "the token is missing or wrong",
    "404": "there is no such job or file",
    "413": "the request is too large",
    "415": "the request is no multipart/form-data",
    "422": "the input cannot be used; the error says why",
    "429": "the queue is full; Retry-After says when to try again",
    "503": "no worker can be loaded, or the job cannot be stored",
}


def _errors(*codes: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {code: _answer(_ERRORS[code], schema) for code in sorted(("401", *codes))}


def _post(what: str, files: dict[str, Any], required: list[str], answers: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "properties": {**files, "options": {"type": "string", "description": _OPTIONS}}}
    wait = {
        "name": "wait",
        "in": "query",
        "schema": {"type": "number"},
        "description": "seconds to wait for the result; 0: answer at once with a job",
    }
    body = {"required": True, "content": {"multipart/form-data": {"schema": {**form, "required": required}}}}
    errors = _errors("400", "413", "415", "422", "429", "503")
    return {"summary": what, "parameters": [wait], "requestBody": body, "responses": {**answers, **errors}}


_ACCEPTED = _answer("a job that is not done yet", _JOB)
_DONE = _answer("the job", _JOB)
_TEXT = {"type": "string"}

API: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "fastsam3d", "version": __version__, "summary": "Pictures and masks in, 3D objects out."},
    "paths": {
        "/v1/objects": {
            "post": _post(
                "Reconstructs one masked object",
                {"picture": _FILE, "mask": _FILE, "pointmap": _FILE},
                ["picture", "mask"],
                {"200": _answer("the object as GLB", _FILE, "model/gltf-binary"), "202": _ACCEPTED},
            )
        },
        "/v1/scenes": {
            "post": _post(
                "Reconstructs all masked objects of a picture, and the scene they form",
                {"picture": _FILE, "masks": {"type": "array", "items": _FILE}, "labels": _FILE, "pointmap": _FILE},
                ["picture"],
                {"200": _DONE, "202": _ACCEPTED},
            )
        },
        "/v1/jobs/{id}": {
            "get": {
                "summary": "Tells how far a job is; with Accept: text/event-stream every change as an event",
                "parameters": [_ID],
                "responses": {"200": _DONE, **_errors("404")},
            },
            "delete": {
                "summary": "Deletes a job and its files; one that runs is stopped at its next step",
                "parameters": [_ID],
                "responses": {"204": _answer("it is deleted"), **_errors("404")},
            },
        },
        "/v1/jobs/{id}/files/{name}": {
            "get": {
                "summary": "Gives a file of a job",
                "parameters": [_ID, {"name": "name", "in": "path", "required": True, "schema": _TEXT}],
                "responses": {"200": _answer("the file", _FILE, "application/octet-stream"), **_errors("404")},
            }
        },
        "/healthz": {"get": {"summary": "Whether the service runs", "responses": {"200": _answer("it does")}}},
        "/readyz": {
            "get": {
                "summary": "Whether a worker is loaded",
                "responses": {"200": _answer("one is"), "503": _answer("none is")},
            }
        },
        "/metrics": {
            "get": {"summary": "Counts for Prometheus", "responses": {"200": _answer("text", _TEXT, "text/plain")}}
        },
    },
    "components": {
        "schemas": {
            "Error": {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]},
            "Job": {
                "type": "object",
                "required": ["id", "url", "status", "files"],
                "properties": {
                    "id": _TEXT,
                    "url": _TEXT,
                    "status": {"enum": ["queued", "running", "done", "failed"]},
                    "progress": {"type": ["object", "null"]},
                    "error": {"type": ["string", "null"]},
                    "warnings": {"type": "array", "items": _TEXT},
                    "seconds": {"type": "number"},
                    "objects": {"type": "integer"},
                    "failed_objects": {"type": "integer"},
                    "files": {"type": "object", "additionalProperties": _TEXT},
                },
            },
        },
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
    "security": [{}, {"token": []}],
}


def _row(path: str, method: str, what: dict[str, Any]) -> str:
    parts = what.get("requestBody", {}).get("content", {}).get("multipart/form-data", {}).get("schema", {})
    files = ", ".join(parts.get("properties", {}))
    codes = ", ".join(what["responses"])
    cells = (f"{method.upper()} {path}", what["summary"], files, codes)
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


_ROWS = "".join(_row(path, method, what) for path, own in API["paths"].items() for method, what in own.items())
PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>fastsam3d</title><style>body{font:16px sans-serif;"
    "margin:2em}td,th{padding:.3em 1em .3em 0;text-align:left;vertical-align:top}</style><h1>fastsam3d "
    f"{__version__}</h1><p><a href=openapi.json>openapi.json</a></p><table><tr><th>request<th>what it does<th>parts"
    f"<th>answers</tr>{_ROWS}</table></html>"
)
