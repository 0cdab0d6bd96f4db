"""A client of the service that needs only Python's standard library."""

from __future__ import annotations

import http.client
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsam3d.errors import UserError

BUSY = (429, 503)
"""Answers after which a request is repeated."""
LOOK = 0.3
"""Seconds between two questions for the state of a job."""


class Client:
    """Sends pictures to a service and gets the results.

    Args:
        address: of the service, as `http://127.0.0.1:8000`.
        token: needed if the service has one.
        patience: seconds during which a request is repeated while the service is busy.

    Raises:
        UserError: the address does not begin with http:// or https://.
    """

    def __init__(self, address: str, token: str | None = None, patience: float = 600.0) -> None:
        if not address.startswith(("http://", "https://")):
            raise UserError(f"{address} is not an address. Give one such as http://127.0.0.1:8000.")
        self.address, self.patience = address.rstrip("/"), patience
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def object(self, picture: str | Path, mask: str | Path, **options: Any) -> bytes:
        """Reconstructs a masked object; returns it as GLB.

        Args:
            options: settings that a request may choose, see `fastsam3d.cluster.service.options.CHOSEN`.

        Raises:
            UserError: a file cannot be read, no service answers, the service refuses the request, or the job fails.
        """
        job = self.finished(self._post("objects", [("picture", picture), ("mask", mask)], options))
        if "object.glb" not in job["files"]:
            raise UserError("the job made no GLB. Name glb in the option export.")
        return self._get(job["files"]["object.glb"])

    def scene(self, picture: str | Path, masks: Sequence[str | Path], folder: str | Path, **options: Any) -> list[Path]:
        """Reconstructs all masked objects into a folder; returns the paths of its files.

        Args:
            options: see `object`.

        Raises:
            UserError: see `object`; or the folder cannot be written to.
        """
        job = self._post("scenes", [("picture", picture), *(("masks", mask) for mask in masks)], options)
        paths = []
        for name, url in self.finished(job)["files"].items():
            path, data = Path(folder) / Path(name).name, self._get(url)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            except OSError as error:
                raise UserError(
                    f"{path} cannot be written ({error.strerror or error}). Choose another folder."
                ) from None
            paths.append(path)
        return paths

    def finished(self, job: dict[str, Any]) -> dict[str, Any]:
        """Waits for the end of a job; returns its last state.

        Raises:
            UserError: no service answers, or the job failed.
        """
        while job["status"] in ("queued", "running"):
            time.sleep(LOOK)
            job = self._state(job["url"])
        if job["status"] != "done":
            raise UserError(job["error"])
        return job

    def _post(self, what: str, files: Sequence[tuple[str, str | Path]], options: dict[str, Any]) -> dict[str, Any]:
        limit, body = secrets.token_hex(16), b""
        for part, path in files:
            head = (
                f'--{limit}\r\nContent-Disposition: form-data; name="{part}"; filename="x{Path(path).suffix}"\r\n\r\n'
            )
            try:
                body += head.encode() + Path(path).read_bytes() + b"\r\n"
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror or error}). Check the path.") from None
        head = f'--{limit}\r\nContent-Disposition: form-data; name="options"\r\n\r\n{json.dumps(options)}\r\n'
        body += f"{head}--{limit}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={limit}"}
        return self._state(f"/v1/{what}?wait=0", body, headers)

    def _state(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """The state of a job, as the service answers it."""
        try:
            job = json.loads(self._get(path, body, headers))
            if isinstance(job, dict) and {"status", "url", "files"} <= job.keys():
                return job
        except ValueError:
            pass
        raise UserError(f"what answers at {self.address} is not this service. Check the address.")

    def _get(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        request = urllib.request.Request(self.address + path, body, {**self._headers, **(headers or {})})
        end = time.monotonic() + self.patience
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    data: bytes = answer.read()
                    return data
            except urllib.error.HTTPError as error:
                text, after = error.read(), _seconds(error.headers.get("Retry-After"))
                if error.code not in BUSY or time.monotonic() + after > end:
                    raise UserError(_sentence(text) or f"the service answered {error.code}") from None
                time.sleep(after)
            except (OSError, http.client.HTTPException) as error:
                raise UserError(f"no service answers at {self.address} ({error}).") from None


def _seconds(text: str | None) -> float:
    """The value of a header `Retry-After`. It may be a date too, which a proxy writes."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else 1.0


def _sentence(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
