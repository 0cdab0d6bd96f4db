"""Builds the demo's page in Gradio, and connects each part of it to a method of the session.

Only this folder imports Gradio at the top of its modules: Gradio reads the annotations of the functions below.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from fastsam3d.app.marking.marks import data_url
from fastsam3d.app.page import fragments
from fastsam3d.app.page.ask_tab import ASK_A_ROOM, build_ask_tab
from fastsam3d.app.page.knobs import LABELS, MAXIMUM_ERROR, MAXIMUM_STRIDE, configure, knobs_of, presets
from fastsam3d.app.page.parts import INSIDE, POLL, QUIET, asset, piece, refuse_quietly, value_of
from fastsam3d.app.runs.queue import DONE, STOPPED
from fastsam3d.app.viewer import scripts
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.app.visitors.visitor import EXAMPLES, Session
from fastsam3d.app.visitors.visitors import Visitors
from fastsam3d.basics.picture_files import open_image_file
from fastsam3d.errors import UserError
from fastsam3d.jobs.pictures import example_directory

logger = logging.getLogger(__name__)

TITLE = "fastsam3d"
_ANSWERS = itertools.count(1)


def build_page(studio: Studio) -> Any:
    """The page as Gradio blocks.

    Args:
        studio: what all visitors share.
    """
    described = presets()
    first = next(iter(described))
    knobs = knobs_of(first)
    visitors = Visitors(studio)

    def labelled(knob: str) -> dict[str, Any]:
        return {"label": LABELS[knob][0], "info": LABELS[knob][1], "elem_id": f"knob-{knob}"}

    def visitor(request: gr.Request) -> Session:
        return visitors.session(str(request.session_hash))

    def acted(request: gr.Request, event: gr.EventData) -> tuple[Any, str]:
        session = visitor(request)
        before, message, kind = session.picture, None, "advice"
        try:
            message = session.act(event._data if isinstance(event._data, dict) else {})
        except UserError as error:
            message, kind = str(error), "error"
        except Exception as error:
            logger.error("an action in the demo's page failed: %s: %.200s", type(error).__name__, error)
            logger.debug("its traceback", exc_info=True)
            message, kind = INSIDE, "error"
        return _marker(session, session.picture is not before), fragments.notice(message, kind)

    def turned(preset: str) -> Any:
        values = knobs_of(preset)
        return described[preset], values.stride, values.error, values.carving, values.merging

    def result_of(session: Session) -> tuple[Any, str, str, str]:
        finished = session.finished
        if finished is None:
            return gr.skip(), "", "", ""
        return (
            gr.HTML(result=fragments.shown(finished, studio.folder), busy=False),
            fragments.headline(finished),
            fragments.table(finished),
            fragments.downloads(finished, studio.folder),
        )

    def run(
        preset: Any,
        stride: Any,
        error: Any,
        carving: Any,
        merging: Any,
        seed: Any,
        count: Any,
        plain_too: Any,
        request: gr.Request,
    ) -> Iterator[Any]:
        session = visitor(request)
        knob_values = preset, stride, error, carving, merging
        yield from follow(
            session, lambda: session.start(session.request(configure(*knob_values), seed, count, plain_too))
        )

    def run_plain(request: gr.Request) -> Iterator[Any]:
        session = visitor(request)
        yield from follow(session, session.start_plain)

    def follow(session: Session, start: Any) -> Iterator[Any]:
        idle = (gr.Button(visible=True), gr.Button(visible=False))
        busy = (gr.Button(visible=False), gr.Button(visible=True))
        unchanged = (gr.skip(),) * 4
        try:
            job = start()
        except UserError as error:
            yield (fragments.notice(str(error)), *idle, *unchanged)
            return
        except Exception as error:  # values that the page itself never sends
            logger.error("a run could not be started: %s: %.200s", type(error).__name__, error)
            yield (fragments.notice(INSIDE), *idle, *unchanged)
            return
        finished = False
        try:
            # On a computer without a GPU the turning views would take time from the run that is measured.
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
            session.select(value_of(event, "seed"))
        except UserError as error:
            return (fragments.notice(str(error)), *(gr.skip(),) * 4)
        return ("", *result_of(session))

    def stopped(request: gr.Request) -> None:
        visitor(request).stop()

    def left(request: gr.Request) -> None:
        visitors.leave(str(request.session_hash))

    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        piece(asset("header.html"))
        with gr.Tabs():
            with gr.Tab("A picture to 3D"), gr.Row(elem_classes="columns"):
                with gr.Column(scale=5, min_width=320, elem_classes="inputs"):
                    piece("<h2>1 · Mark what you want in 3D</h2>")
                    canvas = piece(
                        html_template=asset("marker.html").replace("@shelf", fragments.shelf(_thumbnails())),
                        js_on_load=asset("marker.js"),
                        picture="",
                        masks="",
                        marks={},
                        stamp=0,
                        elem_id="marker",
                    )
                    said = piece(elem_id="said")
                    piece("<h2>2 · Choose how</h2>")
                    preset = gr.Radio(list(described), value=first, label="Preset", elem_id="preset")
                    about = gr.Markdown(described[first], elem_id="about-preset", elem_classes="fine")
                    plain_too = gr.Checkbox(
                        True, label="Run it without acceleration too, to compare", elem_id="compare-off"
                    )
                    with gr.Accordion("Seeds and settings", open=False, elem_id="more"):
                        with gr.Row():
                            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
                            count = gr.Slider(
                                1,
                                studio.limits.seeds,
                                value=1,
                                step=1,
                                label="Seeds to try",
                                info="The one that fits your mask best is shown.",
                                elem_id="count",
                            )
                        stride = gr.Slider(1, MAXIMUM_STRIDE, value=knobs.stride, step=1, **labelled("stride"))
                        error = gr.Slider(0, MAXIMUM_ERROR, value=knobs.error, step=0.1, **labelled("error"))
                        carving = gr.Checkbox(knobs.carving, **labelled("carving"))
                        merging = gr.Checkbox(knobs.merging, **labelled("merging"))
                    go = gr.Button("Reconstruct", variant="primary", size="lg", elem_id="go")
                    stop = gr.Button("Stop", variant="stop", size="lg", visible=False, elem_id="stop")
                with gr.Column(scale=7, min_width=320, elem_classes="outputs"):
                    piece("<h2>3 · Compare</h2>")
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
                    table = piece(elem_id="table")
            with gr.Tab(ASK_A_ROOM, elem_id="ask-tab"):
                build_ask_tab(visitors)

        for component in (preset, plain_too, seed, count, stride, error, carving, merging):
            refuse_quietly(component)
        outcome = [viewers, headline, table, files]
        running = {"outputs": [status, go, stop, *outcome], "concurrency_limit": studio.queue.capacity + 2, **QUIET}
        canvas.select(acted, None, [canvas, said], trigger_mode="multiple", **QUIET)
        preset.change(turned, preset, [about, stride, error, carving, merging], **QUIET)
        go.click(run, [preset, stride, error, carving, merging, seed, count, plain_too], **running)
        # On a phone the result is below; it comes into view when the run begins.
        go.click(None, js="() => { if (innerWidth < 900) document.querySelector('.outputs').scrollIntoView(); }")
        viewers.option_select(run_plain, None, **running)
        viewers.select(chosen, None, [status, *outcome], **QUIET)
        stop.click(stopped, None, None, concurrency_limit=None, **QUIET)
        page.unload(left)
    page.queue(default_concurrency_limit=4, max_size=200)
    return page


def appearance() -> dict[str, Any]:
    """Theme, style and scripts, for mounting the page. No font and no script comes from elsewhere."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
        radius_size=gr.themes.sizes.radius_md,
    ).set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")
    return {"theme": theme, "css": asset("page.css"), "head": f"<script>{scripts()}</script>"}


def _marker(session: Session, fresh: bool) -> Any:
    """Updates the marking part after an action; `fresh` says that the picture is another one."""
    # Also where nothing has changed, as after a click that was refused, the page must hear that it was answered.
    told: dict[str, Any] = {"stamp": next(_ANSWERS)}
    if session.marking is not None and session.picture is not None:
        overlay = session.marking.overlay()
        told["masks"] = "" if overlay is None else data_url(overlay)
        told["marks"] = session.marking.view() | {"ready_masks": session.has_masks}
        if fresh:  # it is by far the largest part
            told["picture"] = data_url(Image.fromarray(session.picture.pixels))
    return gr.HTML(**told)


def _thumbnails() -> dict[str, str]:
    found = {}
    for name in EXAMPLES:
        try:
            with open_image_file(example_directory(name) / "image.png") as image:
                found[name] = data_url(image.convert("RGB"), 96)
        except (OSError, UserError):
            continue  # an installation without them still takes pictures
    return found
