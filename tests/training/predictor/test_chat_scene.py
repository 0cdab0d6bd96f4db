"""Stored maps of Chat-Scene on a small folder: extracted, learned from, predicted, and the commands for it."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("transformers", reason="transformers is not installed here")

import chat_scene_fixtures
import torch
from chat_scene_files import SEGMENTED
from tiny_chat_scene import HIDDEN, OBJECTS

import fastsam3d
from fastsam3d.cli.main import main
from fastsam3d.errors import UserError
from fastsam3d.mllm.chat_scene import maps_of_questions, read_question_data
from fastsam3d.mllm.predictor.files import load_predictor, notes_of, save_predictor
from fastsam3d.mllm.predictor.network import PredictorConfig, seeded_predictor
from fastsam3d.mllm.predictor.question_sets import QuestionSet
from fastsam3d.mllm.predictor.stored_maps import StoredMaps, load_maps, save_maps
from fastsam3d.training.predictor.chat_scene import extraction, filling
from fastsam3d.training.predictor.chat_scene.batches import batches_of_maps, inputs_of, maps_with_questions
from fastsam3d.training.predictor.chat_scene.extraction import extract
from fastsam3d.training.predictor.chat_scene.options import ExtractionOptions, MapsPredictorOptions, PredictionOptions
from fastsam3d.training.predictor.chat_scene.prediction import predict
from fastsam3d.training.predictor.chat_scene.training import train_on_maps

files, model, data = chat_scene_fixtures.files, chat_scene_fixtures.model, chat_scene_fixtures.data


@pytest.fixture(scope="module")
def given(files):
    paths = {name: str(getattr(files, name)) for name in ("vicuna", "checkpoint", "annotations")}
    return paths | {"features": (str(files.features_3d), str(files.features_2d))}


@pytest.fixture(scope="module")
def maps(files, given, tmp_path_factory):
    """File of the maps of all questions."""
    path = tmp_path_factory.mktemp("maps") / "maps.safetensors"
    extract(ExtractionOptions(**given, batch=5, output=str(path)))
    return str(path)


def test_maps_are_stored_by_the_numbers_of_all_questions(model, data, maps):
    stored = load_maps(maps, model.identity(), "mass", "last")
    assert sorted(stored.maps) == list(range(12)) and stored.sets == tuple(data.sets.values())
    for question in data.questions():
        asked = question.annotation
        (expected,), _ = maps_of_questions(model, [data.scene(asked.scene)], [asked.prompt], [""], "last")
        torch.testing.assert_close(stored.maps[question.number], expected, rtol=1e-4, atol=1e-6)
        assert stored.there(question.number).tolist() == [True] * 3 + [False] * 3


def test_answers_are_read_where_their_rows_count(model, data, given, tmp_path):
    path = str(tmp_path / "maps.safetensors")
    stored = extract(ExtractionOptions(**given, rows="text", benchmark=("scanqa",), output=path))
    asked = data.annotations["scanqa"][0]
    (expected,), _ = maps_of_questions(model, [data.scene(asked.scene)], [asked.prompt], ["Brown."], "text")
    torch.testing.assert_close(stored.maps[0], expected, rtol=1e-4, atol=1e-6)
    for changes, words in [
        ({"rows": "last", "benchmark": ("scanqa",)}, "rows 'text', and 'last' is needed: .* resume=false"),
        ({"rows": "text", "benchmark": ("sqa3d",)}, r"holds maps of other questions \(scanqa_val\)"),
        ({"vicuna": None}, "mllm extract: vicuna is missing"),
    ]:
        with pytest.raises(UserError, match=words):
            extract(ExtractionOptions(**given | {"output": path} | changes))
    again = extract(ExtractionOptions(**given, rows="last", benchmark=("sqa3d",), output=path, resume=False))
    assert [one.name for one in load_maps(path).sets] == ["sqa3d_val"] and len(again.maps) == 2


def test_an_interrupted_extraction_keeps_what_it_has(given, maps, tmp_path, monkeypatch):
    asked = []

    def interrupted(model, scenes, prompts, answers, rows):
        if len(asked) == 2:
            asked.append(None)
            raise KeyboardInterrupt
        asked.append(prompts)
        return maps_of_questions(model, scenes, prompts, answers, rows)

    monkeypatch.setattr(extraction, "maps_of_questions", interrupted)
    options, told = ExtractionOptions(**given, batch=5, output=str(tmp_path / "maps.safetensors")), []
    with pytest.raises(KeyboardInterrupt):
        extract(options)
    assert len(load_maps(options.output).maps) == 10
    extract(options, lambda *step: told.append(step[1:]))
    assert asked[3:] == [[*asked[3]]] and len(asked[3]) == 2
    assert told[1:] == [(10, 12), (12, 12)]
    found, expected = load_maps(options.output), load_maps(maps)
    for number, values in expected.maps.items():
        torch.testing.assert_close(found.maps[number], values, rtol=1e-4, atol=1e-6)


def test_a_long_extraction_writes_now_and_then(given, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(filling, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(filling, "save_maps", lambda maps, path: written.append(len(maps.maps)))
    extract(ExtractionOptions(**given, batch=5, output=str(tmp_path / "maps.safetensors")))
    assert written == [5, 10, 12]


def test_batches_hold_each_question_once_in_an_epoch(model, data, maps):
    stored = load_maps(maps)
    source = batches_of_maps(model, data, stored, 4)
    by_map = {tuple(values.tolist()): number for number, values in stored.maps.items()}
    epochs = [[by_map[tuple(row)] for step in range(3) for row in source(0, 3 * e + step)[1].tolist()] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12)) and epochs[0] != epochs[1]
    batch, target = source(0, 2)
    again, _ = source(0, 2)
    assert torch.equal(batch.visual, again.visual) and not torch.equal(source(1, 2)[1], target)
    # Inputs and map belong to the same question: the words behind the objects are those of its prompt.
    for row, values in enumerate(target.tolist()):
        question = next(one for one in data.questions() if one.number == by_map[tuple(values)])
        alone = inputs_of(model, data, [question])
        words = int(alone.text_present.sum())
        torch.testing.assert_close(batch.text[row, -words:], alone.text[0])
        assert int(batch.text_present[row].sum()) == words
    assert batch.visual.shape == (4, OBJECTS, 3, HIDDEN) and batch.boxes is not None
    assert batch.boxes[0].tolist() == [*SEGMENTED, [0] * 6, [0] * 6]
    assert batches_of_maps(model, data, stored, 99, with_boxes=False)(0, 0)[0].boxes is None


def test_maps_say_which_questions_they_are_of(model, data, given, maps, tmp_path):
    options = MapsPredictorOptions(**given, maps=maps, output=str(tmp_path), steps=1)
    stored, read = maps_with_questions(maps, model.identity(), options, None, features=data.features)
    assert read.split == "val" and list(read.annotations) == list(data.annotations) and read.features is data.features
    path = str(tmp_path / "other.safetensors")
    for sets, words in [
        ((), "it does not say of which questions"),
        ((data.sets["scanqa"], QuestionSet("a_train", 1, "")), "train, val"),
        ((QuestionSet("scanqa_val", 2, "x"),), "made for 2 other questions"),
    ]:
        save_maps(StoredMaps("mass", "last", model.identity(), {0: torch.ones(6)}, sets), path)
        with pytest.raises(UserError, match=words):
            maps_with_questions(path, model.identity(), options, None, features=data.features)
    with pytest.raises(UserError, match="and 'another' is needed"):
        maps_with_questions(maps, "another", options, None, features=data.features)
    with pytest.raises(UserError, match="no maps of these questions"):
        batches_of_maps(model, data, StoredMaps("mass", "last", "m"), 4)
    data_without = read_question_data(given["annotations"], ("all",), "val", data.features)
    object.__setattr__(data_without, "objects", {})
    with pytest.raises(UserError, match="12 questions with maps are about scenes without features or boxes"):
        batches_of_maps(model, data_without, stored, 4)


@pytest.fixture(scope="module")
def trained(given, maps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    options = MapsPredictorOptions(
        **given, maps=maps, held_out=maps, output=str(folder), steps=60, batch=6, width=16, measure_every=20,
        learning_rate=5e-3, average=0.9, held_out_batches=2,
    )  # fmt: skip
    train_on_maps(options)
    return folder


def test_a_predictor_learns_the_maps(trained, model, maps):
    network = load_predictor(trained / "predictor.safetensors")
    assert (network.config.width, network.config.embedding, network.config.rows) == (16, HIDDEN, "last")
    assert notes_of(trained / "predictor.safetensors")["language model"] == model.identity()
    lines = [json.loads(line) for line in (trained / "losses.jsonl").read_text().splitlines()]
    measured = [line["held_out_divergence"] for line in lines if "held_out_divergence" in line]
    assert len(measured) == 3 and measured[-1] < 0.5 * measured[0]


def test_predicted_maps_are_what_the_predictor_says_within_the_model(trained, model, data, given, tmp_path):
    path = str(trained / "predictor.safetensors")
    options = PredictionOptions(**given, predictor=path, batch=5, output=str(tmp_path / "predicted.safetensors"))
    told = []
    predict(options, lambda *step: told.append(step[1:]))
    assert told[1:] == [(0, 12), (5, 12), (10, 12), (12, 12)]
    stored = load_maps(options.output, model.identity(), "logits", "last")
    with fastsam3d.accelerate(model, "gap_90", gap={"predictor": path}) as acceleration:
        for question in data.questions():
            asked, scene = question.annotation, data.scene(question.annotation.scene)
            boxes = [{"boxes": data.boxes(asked.scene, OBJECTS)}]
            model.answer_all([scene], [asked.prompt], objects=boxes, num_beams=1, max_new_tokens=1)
            scores = acceleration.kept()[0][0].scores
            torch.testing.assert_close(stored.maps[question.number][:3], scores[:3], rtol=1e-3, atol=1e-4)
            assert stored.there(question.number).tolist() == [True] * 3 + [False] * 3
    other = seeded_predictor(PredictorConfig(embedding=HIDDEN), 0)
    save_predictor(other, tmp_path / "other.safetensors", {"language model": "another"})
    with pytest.raises(UserError, match="was trained for 'another'"):
        predict(PredictionOptions(**given, predictor=str(tmp_path / "other.safetensors"), output=options.output))
    with pytest.raises(UserError, match="mllm predict: predictor is missing"):
        predict(PredictionOptions(**given, output=options.output))


def test_settings_that_cannot_be_are_refused(given, maps, tmp_path):
    options = {**given, "maps": maps, "output": str(tmp_path), "steps": 1}
    with pytest.raises(UserError, match="width is 18 and batch 64"):
        train_on_maps(MapsPredictorOptions(**options, width=18))
    text = extract(ExtractionOptions(**given, rows="question", output=str(tmp_path / "question.safetensors")))
    assert text.rows == "question"
    with pytest.raises(UserError, match="rows 'last' and held_out of 'question'"):
        train_on_maps(MapsPredictorOptions(**options, held_out=str(tmp_path / "question.safetensors")))


def test_the_commands_from_maps_to_adaptive_evaluation(files, tmp_path, capsys):
    names = ("vicuna", "checkpoint", "annotations")
    words = [*(f"{name}={getattr(files, name)}" for name in names), f"features={files.features_3d},{files.features_2d}"]
    flags = [part for name in names for part in (f"--{name}", str(getattr(files, name)))]
    flags += ["--features", f"{files.features_3d},{files.features_2d}"]
    extracted, run, predicted = (str(tmp_path / name) for name in ("maps.safetensors", "run", "predicted.safetensors"))
    predictor = f"{run}/predictor.safetensors"
    assert main(["mllm", "extract", *words, "rows=last", "batch=4", f"output={extracted}"]) == 0
    listed = "scanrefer_val, multi3drefer_val, scan2cap_val, scanqa_val, sqa3d_val"
    assert capsys.readouterr().out == f"written: {extracted}, 12 maps (mass, rows last) of {listed}\n"
    training = ["--maps", extracted, "--output", run, "--steps", "2", "--batch", "4", "--width", "8"]
    assert main(["mllm", "train", "predictor-of-maps", *flags, *training]) == 0
    capsys.readouterr()
    assert main(["mllm", "predict", *words, f"predictor={predictor}", f"output={predicted}"]) == 0
    assert capsys.readouterr().out == f"written: {predicted}, 12 maps (logits, rows last) of {listed}\n"
    assert main(["mllm", "search-budget", f"maps={predicted}", "target=66"]) == 0
    out = capsys.readouterr().out
    # One of three objects stays: 66.7 percent of them are left out. The next step on the way to two is further away.
    assert "leaves out 66.67 % of the objects on average over 5 sets, 12 questions; 1 to 1 of them stay." in out
    alpha = out.split()[0].partition("=")[2]
    adaptive = ["preset=gap_sap_90", f"maps={predicted}", f"alpha={alpha}", "benchmark=scanqa", "meteor=false"]
    short = ["max_new_tokens=2", "num_beams=1", f"output={tmp_path / 'out'}"]
    assert main(["mllm", "evaluate", *words, *adaptive, *short]) == 0
    assert "stored maps (logits, rows last)" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert result["benchmarks"][0]["kept_objects"] == 1
    assert main(["mllm", "search-budget", f"maps={predicted}", "rooms=3"]) == 2
    assert "maps and rooms are two sources: give one of them" in capsys.readouterr().err
    assert main(["mllm", "extract", "rows=words"]) == 2
    assert "rows=words is not possible: give last or question or text or answer" in capsys.readouterr().err
