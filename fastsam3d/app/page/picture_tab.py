"""The tab "A picture to 3D": marking, running, comparing, files. Each part is connected to a method of the session.

Imports Gradio at the top of the file, like `page` and for the same reason.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from fastsam3d.app.marking.marks import data_url
from fastsam3d.app.page import fragments, results
from fastsam3d.app.page.choices import run_choices
from fastsam3d.app.page.file_settings import preparation_of
from fastsam3d.app.page.knobs import configure, knobs_of, presets
from fastsam3d.app.page.parts import INSIDE, POLL, QUIET, asset, piece, png_url, value_of
from fastsam3d.app.runs.queue import DONE, STOPPED
from fastsam3d.app.visitors.picture import EXAMPLES
from fastsam3d.app.visitors.visitor import Session
from fastsam3d.app.visitors.visitors import Visitors
from fastsam3d.basics.picture_files import open_image_file
from fastsam3d.errors import UserError
from fastsam3d.jobs.pictures import example_directory

logger = logging.getLogger(__name__)

PICTURE_TO_3D = "A picture to 3D"
"""Name of the tab."""
_ANSWERS = itertools.count(1)


def build_picture_tab(visitors: Visitors) -> None:
    """Builds the content of the tab, inside its `gr.Tab`.

    Args:
        visitors: the visitors of the page.
    """
    studio = visitors.studio

    def visitor(request: gr.Request) -> Session:
        return visitors.session(str(request.session_hash))

    def acted(request: gr.Request, event: gr.EventData) -> tuple[Any, str, Any]:
        session = visitor(request)
        before, message, error, saved = session.picture, None, None, None
        action = event._data if isinstance(event._data, dict) else {}
        try:
            if action.get("action") == "save_mask":
                saved = session.mask_file()
            else:
                message = session.act(action)
        except UserError as problem:
            error = str(problem)
        except Exception as problem:
            logger.error("an action in the demo's page failed: %s: %.200s", type(problem).__name__, problem)
            logger.debug("its traceback", exc_info=True)
            error = INSIDE
        said = fragments.notices(filter(None, [error]), [*filter(None, [message]), *session.doubts()])
        # The notice of the last run is removed, because the marks change. A running job still shows its progress.
        status = "" if error is None and not session.is_busy else gr.skip()
        return _marker(session, session.picture is not before, saved), said, status

    def turned(preset: str) -> Any:
        values = knobs_of(preset)
        return presets()[preset], values.stride, values.error, values.carving, values.merging

    def result_of(session: Session) -> tuple[Any, str, str, str, Any]:
        finished = session.finished
        if finished is None:
            return gr.skip(), "", "", "", gr.Button(visible=False)
        shown = results.shown(finished, studio.folder, session.history.items)
        return (
            gr.HTML(result=shown, busy=False),
            results.headline(finished),
            results.table(finished),
            results.downloads(finished, studio.folder),
            gr.Button(visible=True),
        )

    def run(
        preset: Any,
        stride: Any,
        error: Any,
        carving: Any,
        merging: Any,
        seed: Any,
        count: Any,
        faces: Any,
        texture: Any,
        watertight: Any,
        request: gr.Request,
    ) -> Iterator[Any]:
        session = visitor(request)

        def start() -> Any:
            config = configure(preset, stride, error, carving, merging)
            prepared = preparation_of(faces, texture, watertight)
            return session.start(session.request(config, seed, count, preparation=prepared))

        yield from follow(session, start)

    def run_plain(request: gr.Request) -> Iterator[Any]:
        session = visitor(request)
        yield from follow(session, session.start_plain)

    def write_again(faces: Any, texture: Any, watertight: Any, request: gr.Request) -> Iterator[Any]:
        session = visitor(request)
        yield from follow(session, lambda: session.start_writing(preparation_of(faces, texture, watertight)))

    def follow(session: Session, start: Any) -> Iterator[Any]:
        idle = (gr.Button(visible=True), gr.Button(visible=False))
        busy = (gr.Button(visible=False), gr.Button(visible=True))
        unchanged = (gr.skip(),) * 5
        try:
            job = start()
        except UserError as error:
            yield (fragments.notice(str(error)), *idle, *unchanged)
            return
        except Exception as error:  # for values that the page itself never sends
            logger.error("a run could not be started: %s: %.200s", type(error).__name__, error)
            yield (fragments.notice(INSIDE), *idle, *unchanged)
            return
        finished = False
        try:
            # On a computer without a GPU the turning views would slow down the run that is measured.
            yield (fragments.waiting(job), *busy, gr.HTML(busy=True), *unchanged[1:])
            while not job.wait(POLL):
                yield (fragments.waiting(job), *busy, *unchanged)
            finished = True
        finally:
            if not finished:  # the visitor has left
                job.cancel()
        if job.state == DONE:
            yield ("", *idle, *result_of(session))
        else:
            kind = "advice" if job.state == STOPPED else "error"
            yield (fragments.notice(job.message, kind), *idle, gr.HTML(busy=False), *unchanged[1:])

    def chosen(request: gr.Request, event: gr.EventData) -> Any:
        session = visitor(request)
        try:
            number = value_of(event, "run")
            if number is None:
                session.select(value_of(event, "seed"))
            else:
                session.show_run(number)
        except UserError as error:
            return (fragments.notice(str(error)), *(gr.skip(),) * 5)
        return ("", *result_of(session))

    def stopped(request: gr.Request) -> None:
        visitor(request).stop()

    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="inputs"):
            piece("<h2>1 · Mark what you want in 3D</h2>")
            canvas = piece(
                html_template=asset("marker.html").replace("@shelf", fragments.shelf(_thumbnails())),
                js_on_load=asset("marker.js") + asset("marker_input.js"),
                picture="",
                masks="",
                marks={},
                saved={},
                stamp=0,
                elem_id="marker",
            )
            said = piece(elem_id="said")
            piece("<h2>2 · Choose how</h2>")
            chosen_values = run_choices(studio.limits.seeds)
            go = gr.Button("Reconstruct", variant="primary", size="lg", elem_id="go")
            stop = gr.Button("Stop", variant="stop", size="lg", visible=False, elem_id="stop")
        with gr.Column(scale=7, min_width=320, elem_classes="outputs"):
            piece("<h2>3 · Look, compare, keep</h2>")
            status = piece(elem_id="status")
            headline = piece(elem_id="headline")
            viewers = piece(
                html_template=asset("compare.html"),
                js_on_load=asset("compare.js"),
                result=None,
                busy=False,
                elem_id="compare",
            )
            files = piece(elem_id="files")
            again = gr.Button("Write the files again, as set under “Files”", size="sm", visible=False, elem_id="again")
            table = piece(elem_id="table")

    outcome = [viewers, headline, table, files, again]
    running = {"outputs": [status, go, stop, *outcome], "concurrency_limit": studio.queue.capacity + 2, **QUIET}
    canvas.select(acted, None, [canvas, said, status], trigger_mode="multiple", **QUIET)
    chosen_values.preset.change(turned, chosen_values.preset, chosen_values.described, **QUIET)
    go.click(run, chosen_values.all, **running)
    # On a phone the result is below; it comes into view when the run begins.
    go.click(None, js="() => { if (innerWidth < 900) document.querySelector('.outputs').scrollIntoView(); }")
    again.click(write_again, chosen_values.files, **running)
    viewers.option_select(run_plain, None, **running)
    viewers.select(chosen, None, [status, *outcome], **QUIET)
    stop.click(stopped, None, None, concurrency_limit=None, **QUIET)


def _marker(session: Session, fresh: bool, saved: tuple[str, bytes] | None) -> Any:
    """Updates the marking part after an action.

    Args:
        fresh: whether there is a new picture.
        saved: name and bytes of a mask that the visitor wants as a file.
    """
    # The page needs an answer also if nothing has changed, for instance after a click that was refused.
    told: dict[str, Any] = {"stamp": next(_ANSWERS)}
    if session.marking is not None and session.picture is not None:
        overlay = session.marking.overlay()
        told["masks"] = "" if overlay is None else data_url(overlay)
        told["marks"] = session.marking.view() | {"ready_masks": session.has_masks}
        if fresh:  # it is by far the largest part
            told["picture"] = data_url(Image.fromarray(session.picture.pixels))
    if saved is not None:
        told["saved"] = {"name": saved[0], "address": png_url(saved[1]), "stamp": told["stamp"]}
    return gr.HTML(**told)


def _thumbnails() -> dict[str, str]:
    found = {}
    for name in EXAMPLES:
        try:
            with open_image_file(example_directory(name) / "image.png") as image:
                found[name] = data_url(image.convert("RGB"), 96)
        except (OSError, UserError):
            continue  # without the examples, pictures can still be uploaded
    return found
