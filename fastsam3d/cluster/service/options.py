"""Options of the service, and the settings that a request may choose."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.options import number_from, option, optional_text, whole
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cluster.batch.options import engine, workers
from fastsam3d.errors import UserError

if TYPE_CHECKING:
    from fastsam3d.jobs.request import Request

CHOSEN = ("seed", "export", "faces", "texture", "watertight", "turntable", "preview", "layout")
"""Settings that a request may choose; all others are those of the service."""


@dataclass(frozen=True)
class ServeOptions:
    """Where the service listens, what it runs on, and its limits."""

    host: str = option("127.0.0.1", str, "address to listen at; one that other machines reach needs a token")
    port: int = option(8000, whole(1, 65535), "port to listen at")
    store: str = option("service", str, "folder of the jobs, with their inputs and results")
    engine: str = option("ray", engine, "ray, or inline: one worker in this process, without Ray")
    workers: tuple[int, int] | None = option((1, 1), workers, "replicas: a number, or least and most as 1-8; auto: one")
    gpus_per_worker: float = option(1.0, number_from(0.01, 64), "GPUs of each replica on CUDA; 0.5: two share one")
    address: str | None = option(None, optional_text, "address of a Ray cluster; null: a local Ray")
    token_file: str | None = option(None, optional_text, "file with the token that requests must send; null: no token")
    queue: int = option(64, whole(1), "largest number of jobs that wait or run; further requests get 429")
    batch: int = option(4, whole(1), "first stages of different requests that a replica runs together")
    wait: float = option(30.0, number_from(0, 3600), "seconds until a request without a result gets a job instead")
    seconds: float = option(600.0, number_from(1), "longest time of a job, in seconds")
    keep_minutes: float = option(60.0, number_from(0.01), "minutes for which results are kept")
    store_mib: int = option(4096, whole(1), "largest size of all results, MiB; the oldest are removed first")
    file_mib: float = option(20.0, number_from(0.001), "largest size of a request, MiB")
    megapixels: float = option(50.0, number_from(0.001), "largest size of a picture, megapixels")
    masks: int = option(32, whole(1), "largest number of masks of a scene")
    faces: int = option(1_000_000, whole(4), "largest number that a request may ask for; of a texture it is 2048")
    object_store_mib: int = option(128, whole(80), "memory of a local Ray's object store, MiB")

    def check(self) -> None:
        """Refuses to listen to other machines without a token.

        Raises:
            UserError: it listens to other machines and has no token.
        """
        if self.token_file is None and not _is_loopback(self.host):
            raise UserError(
                f"host={self.host} lets other machines in: give token_file=FILE too, so that only who knows the token "
                "can use the service."
            )

    def token(self) -> str | None:
        """Reads the token of the file; None without one.

        Raises:
            UserError: the file cannot be read, or the token is too short.
        """
        if self.token_file is None:
            return None
        from fastsam3d.basics.paths import require_file, user_path

        path = require_file(user_path(self.token_file), f"the token's file {self.token_file}", 4096)
        token = path.read_text(encoding="utf-8", errors="replace").strip()
        if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
            raise UserError(f"{path} holds no token: write at least 16 letters and digits on one line.")
        return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def chosen(text: str | None, options: ServeOptions, scene: bool) -> dict[str, Any]:
    """Reads and checks the settings of a request.

    Args:
        text: a JSON object, or None.

    Raises:
        UserError: no JSON object, a setting that cannot be chosen, or a value that cannot be used.
    """
    from fastsam3d.jobs.request import request_with

    try:
        given = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise UserError('options is no JSON object. Give one such as {"seed": 3, "faces": 5000}.')
    known = [key for key in CHOSEN if not (scene and key == "layout")]
    for key in given:
        if key not in known:
            raise UserError(f"unknown option {key[:40]!r}. {suggestion(key[:40], known, len(known))}")
    values: dict[str, Any] = {"export": ["glb"], "preview": False, **given}
    request_with(**{key: value for key, value in values.items() if value is not None})
    for key, most in (("faces", options.faces), ("texture", 2048)):
        if values.get(key) is not None and values[key] > most:
            raise UserError(f"{key} is {values[key]}: this service takes up to {most}.")
    return values


def with_chosen(request: Request, values: Mapping[str, Any]) -> Request:
    """Returns the service's request with the chosen settings."""
    from fastsam3d.jobs.request import request_with

    checked = request_with(**{key: value for key, value in values.items() if value is not None})
    return dataclasses.replace(request, **{key: getattr(checked, key) for key in values})
