"""A client of the service that needs only Python's standard library."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsam3d.errors import UserError


class Client:
    """Sends pictures to a service and gets the results.

    Args:
        address: of the service, as `http://127.0.0.1:8000`.
        token: needed if the service has one.
        patience: seconds during which a request is repeated while the service is busy.
    """

    def __init__(self, address: str, token: str | None = None, patience: float = 600.0) -> None:
        self.address, self.patience = address.rstrip("/"), patience
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def object(self, picture: str | Path, mask: str | Path, **options: Any) -> bytes:
        """Reconstructs a masked object; returns it as GLB.

        Raises:
            UserError: the service refuses it, or the job fails.
        """
        job = self._post("objects", [("picture", picture), ("mask", mask)], options)
        return self._get(self.finished(job)["files"]["object.glb"])

    def scene(self, picture: str | Path, masks: Sequence[str | Path], folder: str | Path, **options: Any) -> list[Path]:
        """Reconstructs all masked objects into a folder; returns the paths of its files.

        Raises:
            UserError: the service refuses it, or the job fails.
        """
        job = self._post("scenes", [("picture", picture), *(("masks", mask) for mask in masks)], options)
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = []
        for name, url in self.finished(job)["files"].items():
            paths.append(Path(folder) / Path(name).name)
            paths[-1].write_bytes(self._get(url))
        return paths

    def finished(self, job: dict[str, Any]) -> dict[str, Any]:
        """Waits for the end of a job."""
        while job["status"] in ("queued", "running"):
            time.sleep(0.3)
            job = json.loads(self._get(job["url"]))
        if job["status"] != "done":
            raise UserError(job["error"])
        return job

    def _post(self, what: str, files: Sequence[tuple[str, str | Path]], options: dict[str, Any]) -> dict[str, Any]:
        limit, body = secrets.token_hex(16), b""
        for part, path in files:
            head = (
                f'--{limit}\r\nContent-Disposition: form-data; name="{part}"; filename="x{Path(path).suffix}"\r\n\r\n'
            )
            body += head.encode() + Path(path).read_bytes() + b"\r\n"
        head = f'--{limit}\r\nContent-Disposition: form-data; name="options"\r\n\r\n{json.dumps(options)}\r\n'
        body += f"{head}--{limit}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={limit}"}
        job: dict[str, Any] = json.loads(self._get(f"/v1/{what}?wait=0", body, headers))
        return job

    def _get(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        request = urllib.request.Request(self.address + path, body, {**self._headers, **(headers or {})})
        end = time.monotonic() + self.patience
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    data: bytes = answer.read()
                    return data
            except urllib.error.HTTPError as error:
                text = error.read()
                after = float(error.headers.get("Retry-After", 1))
                if error.code not in (429, 503) or time.monotonic() + after > end:
                    raise UserError(_sentence(text) or f"the service answered {error.code}") from None
                time.sleep(after)
            except OSError as error:
                raise UserError(f"no service answers at {self.address} ({error}).") from None


def _sentence(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
