"""Questions about rooms in the page: what visitors may choose, and what is said where something is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from app_stand_in import PATIENCE
from tiny_scene_model import write_tiny_model

from fastsam3d.app.rooms import fragments, model
from fastsam3d.app.rooms.choosing import (
    BUNDLED,
    EXAMPLES,
    FILE,
    OBJECTS,
    SEED,
    chosen_room,
    example_questions,
    read_uploaded_room,
)
from fastsam3d.app.rooms.model import INSTALL, RoomModel
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.app.visitors.visitor import Session
from fastsam3d.errors import UserError
from fastsam3d.mllm.mini.asking import Asked, Reading, check_question
from fastsam3d.mllm.scenes.files import bundled_room, read_room
from fastsam3d.mllm.scenes.questions import KINDS, make_questions
from fastsam3d.mllm.scenes.rooms import make_room

ROOM_FILE = '{"width": 3, "depth": 3, "objects": [{"class": "bed", "colour": "red"}]}'


def stored(folder: Path, name: str, text: str) -> Path:
    path = folder / "0123456789" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def upload(studio: Studio, text: str) -> str:
    """Stores a file as the page does; returns its token."""
    import asyncio

    async def chunks():
        yield text.encode()

    return asyncio.run(studio.intake.receive("mine.json", chunks()))


def test_rooms_that_can_be_chosen():
    assert len(chosen_room(BUNDLED, None, None, None)) == 40
    assert chosen_room(SEED, 3, 12.0, None).boxes.tolist() == make_room(3, 12).boxes.tolist()
    own = make_room(0, 5)
    assert chosen_room(FILE, None, None, own) is own
    with pytest.raises(UserError, match="Choose a room file first"):
        chosen_room(FILE, 3, 12, None)


@pytest.mark.parametrize(("seed", "objects"), [(None, 5), ("x", 5), (-1, 5), (2**31, 5), (1, 0), (1, 129), (1e400, 5)])
def test_seeds_and_numbers_out_of_range_are_refused(seed, objects):
    with pytest.raises(UserError, match="must be"):
        chosen_room(SEED, seed, objects, None)


def test_examples_are_questions_that_the_room_allows():
    room = read_room(bundled_room())
    many = [question for seed in range(60) for kind in KINDS for question in make_questions(room, 20, seed, [kind])]
    drawn = {question.text: question.kind for question in many}
    kinds = [drawn.get(text) for text in EXAMPLES[:-1]]
    assert None not in kinds and len(set(kinds)) == len(kinds)
    # The white cabinet is 0.75 m to the north of the bin, the orange one 3.25 m to the south.
    assert EXAMPLES[-1].endswith("at the bin and face north what colour is the cabinet in front of me")
    assert [room.places[cabinet][1] - room.places[11][1] for cabinet in (22, 30)] == pytest.approx([0.75, -3.25])
    assert example_questions(BUNDLED, room) == list(EXAMPLES)
    for text in example_questions(SEED, make_room(7, OBJECTS)):
        assert check_question(text) == text


def test_a_visitors_file_is_opened_and_named_without_its_place(studio: Studio, tmp_path: Path):
    session = Session(studio)
    room = session.open_room(upload(studio, ROOM_FILE))
    assert session.room is room and len(room) == 1
    with pytest.raises(UserError, match=r"mine\.json: object 1 has the class"):
        session.open_room(upload(studio, ROOM_FILE.replace("bed", "bad")))
    assert session.room is room  # what was open stays open
    with pytest.raises(UserError, match="upload is gone"):
        session.open_room("../etc/passwd")
    assert not [path for path in (studio.folder / "uploads").rglob("*") if path.is_file()]
    with pytest.raises(UserError) as raised:
        read_uploaded_room(stored(tmp_path, "bad.json", "{"))
    assert "bad.json" in str(raised.value) and str(tmp_path) not in str(raised.value)


def test_a_question_is_answered_in_the_queue(studio: Studio, tmp_path: Path):
    pytest.importorskip("transformers", reason="language models need transformers (extra mllm)")
    studio.rooms = RoomModel(write_tiny_model(tmp_path / "model"))
    session = Session(studio)
    job = session.ask(make_room(3, 20), "the red chair", "random_90")
    assert job.wait(PATIENCE)
    asked = job.result()
    assert int(asked.kept.sum()) == 2
    html = fragments.answers(asked)
    assert "20 of 20 objects stayed" in html and "2 of 20 objects stayed" in html and "random_90" in html
    assert studio.rooms.get() is studio.rooms.get()


@pytest.mark.parametrize(
    ("question", "preset", "said"),
    [
        ("the red unicorn", "random_90", "unicorn"),
        ("", "random_90", "missing"),
        ("the red chair", "configs/mllm/random_90.yaml", "no such preset"),
        ("the red chair", "/etc/passwd", "no such preset"),
        ("the red chair", None, "no such preset"),
        ("the red chair", ["off"], "no such preset"),
    ],
)
def test_questions_and_presets_are_checked_before_anything_waits(studio: Studio, question, preset, said):
    session = Session(studio)
    with pytest.raises(UserError, match=said):
        session.ask(make_room(3, 20), question, preset)
    assert session.job is None


def test_answers_are_escaped():
    room = make_room(0, 4)
    asked = Asked(room, "<b>?</b>", Reading("unpruned", "<s> yes", 4), Reading("<i>", "no", 8), ())
    html = fragments.answers(asked)
    assert "&lt;s&gt; yes" in html and "&lt;i&gt;" in html and "<i>" not in html
    assert "A different answer" in html and "2.0× slower than unpruned" in html
    assert np.asarray(asked.kept).all()


def test_missing_packages_and_weights_are_said(monkeypatch, tmp_path):
    assert "language_model.safetensors" in str(RoomModel(tmp_path).problem())
    found = importlib.util.find_spec
    monkeypatch.setattr(model, "find_spec", lambda name: None if name == "transformers" else found(name))
    assert RoomModel(tmp_path).problem() == INSTALL and "pip install 'fastsam3d[mllm]'" in INSTALL


@pytest.mark.parametrize("there", [True, False])
def test_the_page_works_with_and_without_a_model(studio: Studio, monkeypatch, tmp_path, there):
    pytest.importorskip("gradio", reason="the page needs Gradio (extra demo)")
    from fastsam3d.app.page.page import build_page

    monkeypatch.setattr(studio.rooms, "problem", lambda: None if there else INSTALL)
    page = build_page(studio)
    names = {getattr(block, "elem_id", None) for block in page.blocks.values()}
    assert {"marker", "go", "ask-tab"} <= names
    assert ("room-go" in names) is there and ("ask-problem" in names) is not there
    notices = [str(block.value) for block in page.blocks.values() if getattr(block, "elem_id", None) == "ask-problem"]
    assert there or "pip install" in notices[0]
