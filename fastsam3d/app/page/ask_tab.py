"""The tab "Ask a room": a question to the small 3D language model, answered without pruning and with it.

Imports Gradio at the top of the file, like `page` and for the same reason.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from fastsam3d.acceleration.presets import preset_info
from fastsam3d.app.page.fragments import notice
from fastsam3d.app.page.parts import INSIDE, POLL, QUIET, asset, piece, refuse_quietly, value_of
from fastsam3d.app.rooms import fragments
from fastsam3d.app.rooms.choosing import (
    BUNDLED,
    FILE,
    LARGEST_SEED,
    OBJECTS,
    SEED,
    SOURCES,
    chosen_room,
    example_questions,
)
from fastsam3d.app.runs.queue import DONE, STOPPED
from fastsam3d.app.visitors.visitor import Session
from fastsam3d.app.visitors.visitors import Visitors
from fastsam3d.basics.config_files import preset_names
from fastsam3d.errors import UserError
from fastsam3d.mllm.scenes.drawing import draw_room
from fastsam3d.mllm.scenes.rooms import IDENTIFIERS, Room

logger = logging.getLogger(__name__)

ASK_A_ROOM = "Ask a room"
"""Name of the tab."""
FAMILY, FIRST = "mllm", "balanced"
LONGEST = 300
"""Largest length of a question, in characters."""


def build_ask_tab(visitors: Visitors) -> None:
    """Builds the content of the tab, inside its `gr.Tab`.

    Args:
        visitors: the visitors of the page.
    """
    problem = visitors.studio.rooms.problem()
    if problem is not None:
        piece(notice(problem, "advice"), elem_id="ask-problem")
        return
    names = list(preset_names(FAMILY))
    first_room = chosen_room(BUNDLED, 0, OBJECTS, None)

    def visitor(request: gr.Request) -> Session:
        return visitors.session(str(request.session_hash))

    def told(act: Any) -> tuple[str, Any]:
        """Returns the result of an action, and a notice if it was refused."""
        try:
            return "", act()
        except UserError as error:
            return notice(str(error)), None
        except Exception as error:
            logger.error("an action in the tab for rooms failed: %s: %.200s", type(error).__name__, error)
            return notice(INSIDE), None

    def changed(source: Any, seed: Any, objects: Any, request: gr.Request) -> tuple[Any, ...]:
        session = visitor(request)
        said, room = told(lambda: chosen_room(source, seed, objects, session.room))
        visible = gr.Row(visible=source == SEED), gr.Column(visible=source == FILE)
        if room is None:
            # A missing file is an error only when the visitor asks a question.
            return ("" if source == FILE else said), *visible, gr.skip(), gr.skip(), ""
        return "", *visible, _plan(room), _examples(source, room), ""

    def uploaded(request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        session = visitor(request)
        said, room = told(lambda: session.open_room(value_of(event, "token")))
        if room is None:
            return said, gr.skip(), gr.skip(), gr.skip()
        return "", _plan(room), _examples(FILE, room), ""

    def asked(
        source: Any, seed: Any, objects: Any, question: Any, preset: Any, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        session = visitor(request)

        def begin() -> Any:
            room = chosen_room(source, seed, objects, session.room)
            return session.ask(room, str(question or "")[:LONGEST], preset)

        said, job = told(begin)
        if job is None:
            yield said, gr.skip(), gr.skip()
            return
        finished = False
        try:
            while not job.wait(POLL):
                yield notice(_meanwhile(job), "advice"), gr.skip(), gr.skip()
            finished = True
        finally:
            if not finished:  # the visitor has left
                job.cancel()
        if job.state != DONE:
            yield notice(job.message, "advice" if job.state == STOPPED else "error"), gr.skip(), gr.skip()
            return
        result = job.result()
        picture = fragments.picture(result.picture(titled=False), f"The room with what was pruned: {result.question}")
        yield "", fragments.answers(result), picture

    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="inputs"):
            piece("<h2>1 · Choose a room</h2>")
            source = gr.Radio(list(SOURCES), value=BUNDLED, show_label=False, elem_id="room-source")
            with gr.Row(visible=False) as made:
                seed = gr.Number(7, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, elem_id="room-seed")
                objects = gr.Slider(1, IDENTIFIERS, value=OBJECTS, step=1, label="Objects", elem_id="room-objects")
            with gr.Column(visible=False) as own:
                file = piece(
                    html_template=asset("room_file.html"), js_on_load=asset("room_file.js"), elem_id="room-file"
                )
            piece("<h2>2 · Ask</h2>")
            question = gr.Textbox(
                label="Question",
                placeholder="the lamp left of the television",
                max_length=LONGEST,
                elem_id="room-question",
            )
            examples = gr.Dataset(
                components=[gr.Textbox(visible=False)],
                samples=[[text] for text in example_questions(BUNDLED, first_room)],
                label="Or click on a question",
                elem_id="room-examples",
            )
            preset = gr.Dropdown(names, value=FIRST, label="Pruning preset", elem_id="room-preset")
            about = gr.Markdown(_about(FIRST), elem_classes="fine")
            go = gr.Button("Ask", variant="primary", size="lg", elem_id="room-go")
        with gr.Column(scale=7, min_width=320, elem_classes="outputs"):
            piece("<h2>3 · Compare</h2>")
            status = piece(elem_id="room-status")
            said = piece(elem_id="room-answers")
            plan = piece(_plan(first_room), elem_id="room-picture")

    for component in (source, seed, objects, question, examples, preset):
        refuse_quietly(component)
    room: list[Any] = [source, seed, objects]
    for part in room:
        part.change(changed, room, [status, made, own, plan, examples, said], **QUIET)
    file.select(uploaded, None, [status, plan, examples, said], **QUIET)
    preset.change(_about, preset, about, **QUIET)
    asking = {"outputs": [status, said, plan], "concurrency_limit": visitors.studio.queue.capacity + 2, **QUIET}
    chosen = examples.click(lambda sample: sample[0], examples, question, **QUIET)
    for event in (go.click, question.submit, chosen.then):
        event(asked, [*room, question, preset], **asking)


def _plan(room: Room) -> str:
    return fragments.picture(draw_room(room), f"A room of {len(room)} objects from above")


def _examples(source: Any, room: Room) -> Any:
    return gr.Dataset(samples=[[text] for text in example_questions(source, room)])


def _about(name: str) -> str:
    return escape(preset_info(name, FAMILY).description)


def _meanwhile(job: Any) -> str:
    if job.state == "waiting" and job.position:
        return f"{job.position} run{'s' if job.position != 1 else ''} before yours"
    return f"Asking, {job.seconds:.0f} s. The first question takes longer, because the model is loaded."
