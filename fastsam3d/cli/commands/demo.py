"""`demo`: serves the page."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.paths import user_path
from fastsam3d.basics.processes.listening import listening_socket, web_address
from fastsam3d.basics.processes.temporary import own_folder
from fastsam3d.cli.flags import asks_for_help, parse
from fastsam3d.errors import UserError

if TYPE_CHECKING:
    from fastsam3d.jobs.request import Request

USAGE = """\
usage: python gradio_demo.py [key=value ...]

Serves a page for trying fastsam3d in the browser: choose a picture, mark objects, look at the result, download it, and
compare it with the run without acceleration. Ends with Ctrl-C; what it wrote is removed then.

  port=7860                0 takes any free one
  host=127.0.0.1           another address makes the page reachable from other machines: there is no password
  timeout=600              seconds that one run may take
  waiting=16               runs that may wait; one runs at a time
  upload_mb=20             largest upload
  warm_up=true             run once at the start, so that the first visitor's times can be compared
  language_model=FOLDER    a small 3D language model that you trained, for the tab "Ask a room"

and of `infer`: model=NAME, checkpoint_dir=DIR, device=cuda, threads=2, precision=bfloat16,
model.ss_sampler.inference_steps=12

To mark objects with Segment Anything: sam_checkpoint=FILE, and sam_model=vit_b, vit_l or vit_h. It needs the package
segment_anything.
"""
DEFAULTS: dict[str, Any] = {
    "port": 7860,
    "host": "127.0.0.1",
    "timeout": 600,
    "waiting": 16,
    "upload_mb": 20,
    "warm_up": True,
    "language_model": None,
}
SMALL = "mini"
"""Name of the model that ships."""
RANGES = {"port": (0, 65535), "timeout": (1, 86400), "waiting": (1, 1000), "upload_mb": (1, 1000)}
OWN = (
    *("acceleration", "seed", "output_dir", "image_path", "image_dir", "mask_path", "mask_index", "pointmap", "name"),
    *("masks", "box", "point", "all", "faces", "texture", "watertight"),
)
"""Settings of `infer` that are chosen in the page."""
UNUSED = (
    *("depth", "depth_model", "layout", "preview", "preview_splats", "export", "finish", "turntable"),
    *("batch", "resume"),
)
"""Settings of `infer` and `infer_scene` that the page does not use."""


@dataclass(frozen=True)
class Options:
    """Settings of the server; the rest of the words are for the pipeline."""

    port: int
    host: str
    timeout: int
    waiting: int
    upload_mb: int
    warm_up: bool
    language_model: str | None
    rest: tuple[str, ...]


def options_from(words: Sequence[str]) -> Options:
    """Reads `key=value` words.

    Raises:
        UserError: a word that is no key=value, a value out of range, or a key that the page chooses or does not use.
    """
    values, rest = dict(DEFAULTS), []
    for word in words:
        key, sign, value = word.lstrip("-").partition("=")
        if not sign:
            raise UserError(f"{word!r} is not key=value. See --help.")
        if key in RANGES:
            low, high = RANGES[key]
            if not value.isdecimal() or not low <= int(value) <= high:
                raise UserError(f"{key}={value} is not possible: a whole number from {low} to {high} is needed.")
            values[key] = int(value)
        elif key == "warm_up":
            if value not in ("true", "false"):
                raise UserError(f"warm_up={value} is not possible: give true or false.")
            values[key] = value == "true"
        elif key in DEFAULTS:
            values[key] = value
        elif key.partition(".")[0] in OWN:
            raise UserError(f"{key} is chosen in the page, not when the demo is started.")
        elif key in UNUSED:
            raise UserError(f"{key} is not used by the page. --help lists its settings.")
        else:
            rest.append(word)
    return Options(**values, rest=tuple(rest))


def main(words: list[str]) -> int:
    """Serves until interrupted; returns the exit code.

    Raises:
        UserError: settings that cannot be used, Gradio missing, or an address that is taken.
    """
    if asks_for_help(words):
        sys.stdout.write(USAGE)
        return 0
    options = options_from(words)
    from fastsam3d.cli.settings import request_of

    request = request_of(parse(options.rest, "python gradio_demo.py"))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(listening_socket(options.host, options.port)))
        folder = stack.enter_context(own_folder())
        _keep_gradio_in(folder / "uploads")
        serve(options, request, folder, listener)
    return 0


def serve(options: Options, request: Request, folder: Path, listener: socket.socket) -> None:
    """Serves until interrupted.

    Args:
        request: settings of the pipeline.
        folder: for all files.
        listener: bound already.

    Raises:
        UserError: Gradio or a package for marking is missing.
    """
    from fastsam3d.app.rooms.model import RoomModel
    from fastsam3d.app.runs.queue import JobQueue
    from fastsam3d.app.server.server import LOOPBACK, build_app, require_gradio
    from fastsam3d.app.server.uploads import Limits
    from fastsam3d.app.visitors.shared import Studio
    from fastsam3d.jobs.report import device_name
    from fastsam3d.jobs.request import as_plain

    require_gradio()
    import uvicorn

    # The page sends people here for what went wrong inside.
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")

    def about(pipeline: Any) -> dict[str, Any]:
        plain = as_plain(request)
        kept = ("model", "precision", "random_weights", "samplers")
        return {"device": device_name(pipeline.device)} | {key: plain[key] for key in kept}

    marker = request.marker.load(request.device)
    if marker.note:
        sys.stderr.write(f"warning: {marker.note}\n")
    # Before anything is served: missing weights end here, and not at the first visitor's run.
    pipeline = request.load()
    queue = JobQueue(options.waiting, options.timeout)
    studio = Studio(
        lambda: pipeline,
        folder / "results",
        queue,
        Limits(file_bytes=options.upload_mb * 2**20),
        marker.segmenter,
        about,
        options.warm_up,
        RoomModel(None if options.language_model is None else user_path(options.language_model)),
        request.threads,
        _model_note(request),
    )
    app = build_app(studio, options.host)
    studio.prepare()
    port = listener.getsockname()[1]
    print(f"fastsam3d demo: {web_address(options.host, port)}  (Ctrl-C ends it)", flush=True)
    if options.host not in LOOPBACK:
        print("warning: other machines can reach this page, and there is no password.", file=sys.stderr, flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        queue.close()


def _model_note(request: Request) -> str | None:
    """What the page says of the model under its title."""
    from fastsam3d.app.page.fragments import SMALL_MODEL

    return SMALL_MODEL if request.model == SMALL and request.checkpoint_dir is None else None


def _keep_gradio_in(folder: Path) -> None:
    """Keeps uploads in our own folder, and keeps Gradio from sending anything anywhere."""
    folder.mkdir(parents=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
