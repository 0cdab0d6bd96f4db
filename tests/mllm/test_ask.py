"""`mllm ask` on a tiny model: what is printed and drawn, and that mistakes end in a line."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_scene_model import tiny_scene_model, write_tiny_model

from fastsam3d.cli.commands.mllm import ask as command
from fastsam3d.cli.commands.mllm.dispatch import SUB_VERBS
from fastsam3d.cli.main import main
from fastsam3d.errors import UserError
from fastsam3d.mllm.mini.asking import Asked, Reading, ask, check_question, indices_of, named
from fastsam3d.mllm.mini.prompts import answer, observe
from fastsam3d.mllm.scenes.files import room_of
from fastsam3d.mllm.scenes.rooms import make_room

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install fastsam3d[mllm]")

QUESTION = "the red chair beside the table"
ROOM = room_of(
    {
        "width": 4,
        "depth": 3,
        "objects": [
            {"id": 3, "class": "chair", "colour": "red", "size": "large"},
            {"id": 100, "class": "bed", "colour": "white"},
        ],
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["mllm", "ask", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_both_answers_are_printed_and_the_picture_is_written(run, folder, tmp_path):
    start = time.monotonic()
    code, out, err = run(QUESTION, f"model={folder}", "preset=fastv_35", "output=pictures/room.png")
    assert (code, err) == (0, "")
    assert re.search(r"^room +the bundled room, 40 objects$", out, re.MULTILINE)
    assert re.search(rf"^question +{QUESTION}$", out, re.MULTILINE)
    assert re.search(r"^unpruned +.+; prompt read in \d+\.\d ms$", out, re.MULTILINE)
    # Three tenths of 40 objects.
    assert re.search(r"^fastv_35 +.+; prompt read in \d+\.\d ms, 12 of 40 objects stayed$", out, re.MULTILINE)
    assert re.search(r"^written +pictures/room.png$", out, re.MULTILINE)
    with Image.open(tmp_path / "pictures" / "room.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
    assert time.monotonic() - start < 120  # seconds on an idle machine; transformers may be imported in it


def test_a_room_of_a_seed_and_the_predictor(run, folder):
    code, out, _ = run("find", "all", "chairs", "seed=7", "objects=10", f"model={folder}")
    assert code == 0 and re.search(r"^room +seed 7, 10 objects$", out, re.MULTILINE)
    assert re.search(r"^balanced +.* \d+ of 10 objects stayed$", out, re.MULTILINE)
    assert Path("ask.png").is_file()


def test_a_room_file_and_pruning_that_is_off(run, folder, tmp_path):
    (tmp_path / "mine.json").write_text('{"width": 3, "depth": 3, "objects": [{"class": "bed", "colour": "red"}]}')
    code, out, _ = run("what colour is the bed", "scene=mine.json", "preset=off", f"model={folder}")
    assert code == 0 and "mine.json, 1 objects" in out and "1 of 1 objects stayed" in out
    said = re.findall(r"^(?:unpruned|off) +(.+); prompt", out, re.MULTILINE)
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "a question is missing"),
        (("the red armchair",), "does not know the word 'armchair'. Did you mean chair"),
        (("the " * 60,), "60 words: ask in at most 48"),
        ((QUESTION, "preset=fastv_91"), "fastv_91"),
        ((QUESTION, "sceen=room.json"), "unknown key 'sceen'. Did you mean scene"),
        ((QUESTION, "--quiet"), "'--quiet' is not of the form key=value"),
        ((QUESTION, "scene=none.json"), "room file none.json does not exist"),
        ((QUESTION, "scene=room.json", "seed=3"), "two rooms"),
        ((QUESTION, "seed=1", "objects=129"), "1 to 128"),
        ((QUESTION, "seed=-1"), "a whole number"),
        ((QUESTION, "output=ask.jpg"), "ends in .png"),
        ((QUESTION, "model=nowhere"), "nowhere/language_model.safetensors does not exist"),
    ],
)
def test_mistakes_end_in_a_line(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "") and err.startswith("error: ") and len(err.splitlines()) == 1
    assert said in err and not list(Path.cwd().iterdir())


def test_a_model_without_a_predictor_answers_with_presets_that_need_none(run, tmp_path):
    folder = write_tiny_model(tmp_path / "plain", predictor=False)
    assert run(QUESTION, f"model={folder}", "preset=random_90")[0] == 0
    code, _, err = run(QUESTION, f"model={folder}", "preset=gap_90")
    assert code == 2 and "needs a predictor" in err


def test_the_picture_must_be_writable(run, folder, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(QUESTION, f"model={folder}", "preset=fastv_35", "output=file/ask.png")
    assert code == 2 and "cannot be written" in err


def test_help_lists_the_sub_verbs(capsys):
    for words in (["mllm"], ["mllm", "--help"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert all(f"  {name} " in out and verb.text in out for name, verb in SUB_VERBS.items())
    for name in SUB_VERBS:
        assert main(["mllm", name, "--help"]) == 0
        assert f"usage: python -m fastsam3d mllm {name}" in capsys.readouterr().out
    assert main(["mllm", "aks"]) == 2
    assert "unknown verb 'aks'. Did you mean ask" in capsys.readouterr().err


def test_an_interruption_says_what_is_left(monkeypatch, capsys):
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "main", interrupted)
    assert main(["mllm", "ask"]) == 130 and capsys.readouterr().err == "interrupted\n"


def test_asking_leaves_the_model_as_it_was_and_says_what_stayed():
    model, room, steps = tiny_scene_model(), make_room(5, 30), []
    before = [dict(vars(module)) for module in model.modules()]
    asked = ask(model, room, "  Where is the red chair? ", "random_90", lambda: steps.append(1))
    assert [dict(vars(module)).keys() for module in model.modules()] == [attributes.keys() for attributes in before]
    assert asked.question == "Where is the red chair?" and len(steps) == 6
    assert asked.plain.answer == answer(model, [observe(room)], ["where is the red chair"])[0]
    assert asked.kept.sum() == 3 and len(asked.cuts) == 1  # a tenth of 30
    scores = asked.cuts[0].scores.numpy()
    assert set(np.flatnonzero(asked.kept)) == set(scores.argsort()[-3:])
    # Shares of a softmax, of the largest one.
    assert asked.heat == pytest.approx(np.exp(scores - scores.max()), rel=1e-5)
    assert asked.plain.milliseconds > 0 and asked.pruned.milliseconds > 0
    with pytest.raises(UserError, match="'unicorn'"):
        ask(model, room, "the red unicorn")


def test_answers_name_their_objects():
    text = "yes <OBJ100> <OBJ003> and <OBJ007>"
    assert indices_of(text, ROOM) == [1, 0]
    assert named(text, ROOM) == (
        "yes <OBJ100> (medium white bed) <OBJ003> (large red chair) and <OBJ007> (not in this room)"
    )
    assert named("", ROOM) == "(no words)" and indices_of("two", ROOM) == []
    asked = Asked(ROOM, "?", Reading("unpruned", "two", 8.04), Reading("off", "no", 4), ())
    assert asked.lines() == [
        ("unpruned", "two; prompt read in 8.0 ms"),
        ("off", "no; prompt read in 4.0 ms, 2 of 2 objects stayed"),
    ]
    assert asked.heat is None and asked.kept.all() and asked.picture().width > 1000
    assert check_question(" the  red\nchair ") == "the red chair"
