"""The evaluation of Chat-Scene on a small folder: what it writes, what prunes, and that it goes on where it was."""

from __future__ import annotations

import json
import math

import pytest

pytest.importorskip("transformers", reason="transformers is not installed here")

import chat_scene_fixtures
import torch
from tiny_chat_scene import LAYERS, OBJECTS

import fastsam3d
from fastsam3d.cli.main import main
from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.chat_scene import run
from fastsam3d.evaluation.language_models.chat_scene.options import EvaluationOptions
from fastsam3d.evaluation.language_models.chat_scene.run import evaluate
from fastsam3d.mllm.benchmarks import BENCHMARKS, read_annotations, read_predictions, read_references, score
from fastsam3d.mllm.chat_scene import ChatScene, answer_questions
from fastsam3d.mllm.predictor.stored_maps import StoredMaps, save_maps

SHORT = {"num_beams": 1, "max_new_tokens": 3}
TWO_OF_THREE = [math.log(share) for share in (0.2, 0.5, 0.3)]
"""Logits of the objects; the two largest hold .8, the largest .5. What fills up comes behind them."""


files, model, data = chat_scene_fixtures.files, chat_scene_fixtures.model, chat_scene_fixtures.data


@pytest.fixture
def options(files, tmp_path):
    def options(**changes):
        given = {name: str(getattr(files, name)) for name in ("vicuna", "checkpoint", "annotations")}
        given |= {"features": (str(files.features_3d), str(files.features_2d)), "meteor": False}
        return EvaluationOptions(**given | SHORT | {"output": str(tmp_path / "out")} | changes)

    return options


@pytest.fixture
def maps(model, data, tmp_path):
    """File of logits of all questions."""
    stored = StoredMaps("logits", "last", model.identity(), sets=tuple(data.sets.values()))
    for question in data.questions():
        stored.add(question.number, torch.tensor([*TWO_OF_THREE, 9.0, 9.0, 9.0]))
    return str(save_maps(stored, tmp_path / "maps.safetensors"))


def test_plain_inference_writes_answers_and_scores_of_all_benchmarks(files, model, data, options, tmp_path):
    told = []
    result = evaluate(options(), {}, lambda *step: told.append(step))
    assert told[0] == ("loading the model", 0, 1)
    assert [step for step in told if step[0] == "ScanRefer"] == [("ScanRefer", n, 3) for n in range(4)]
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written == json.loads(json.dumps(result)) and written["preset"] == "off" and written["maps"] is None
    for record in written["benchmarks"]:
        name = record["benchmark"]
        annotations = data.annotations[name]
        expected = answer_questions(model, annotations, data.features, data.objects, **SHORT)
        found = read_predictions(tmp_path / "out" / f"{name}.json", name)
        assert [one.text for one in found] == [one.text for one in expected]
        references = read_references(files.annotations)
        assert record["scores"] == score(name, expected, references, with_meteor=False)
        assert (record["questions"], record["left_out"]) == (len(annotations), 0)
        assert record["kept_objects"] == 3 and record["report"]["pruned_share"] == 0
    assert [record["benchmark"] for record in written["benchmarks"]] == list(BENCHMARKS)
    table = (tmp_path / "out" / "scores.md").read_text()
    assert "Preset off, split val." in table and table.count("\n| S") == 4


def test_fastv_at_a_layer_with_a_number_of_objects(model, data, options):
    asked = options(preset="fastv_90", benchmark=("scanqa",))
    (record,) = evaluate(asked, {"layer": "2", "keep": "1"})["benchmarks"]
    # One object of three tokens is left of six with three each, in the last of three layers.
    assert record["report"]["pruned_share"] == pytest.approx((1 - 1 / OBJECTS) / LAYERS)
    assert record["kept_objects"] == 1


def test_stored_maps_rank_the_objects(files, model, data, options, maps, tmp_path):
    changes = {"alpha": "0.6"}
    (record,) = evaluate(options(preset="gap_sap_90", maps=maps, benchmark=("scan2cap",)), changes)["benchmarks"]
    assert record["kept_objects"] == 2
    settings = {"external": True, "pruning": {"enabled": True, "layer": 0, "budget": "fixed", "keep": 2}}
    scene = data.scene(data.annotations["scan2cap"][0].scene)
    texts = []
    with fastsam3d.accelerate(model, settings):
        for asked in data.annotations["scan2cap"]:
            texts += model.answer_all([scene], [asked.prompt], objects=[[0.0, 2.0, 1.0, 0, 0, 0]], **SHORT)
    found = read_predictions(tmp_path / "out" / "scan2cap.json", "scan2cap")
    assert [one.text for one in found] == texts


def test_maps_of_something_else_are_refused(files, model, data, options, maps, tmp_path):
    stored = StoredMaps("logits", "last", model.identity(), sets=(data.sets["scanrefer"], data.sets["scanqa"]))
    for number in (0, 1, 2, 3):
        stored.add(number, torch.zeros(OBJECTS))
    part = str(save_maps(stored, tmp_path / "part.safetensors"))
    chosen = {"preset": "gap_sap_90", "maps": part}
    with pytest.raises(UserError, match="no maps of multi3drefer_val; the maps are scanrefer_val, scanqa_val"):
        evaluate(options(**chosen), {})
    with pytest.raises(UserError, match=r"1 prompts have no map \(4\)"):
        evaluate(options(**chosen, benchmark=("scanqa",)), {})
    assert evaluate(options(**chosen, benchmark=("scanqa",), questions=1), {})["benchmarks"][0]["questions"] == 1
    stored.model = "another"
    save_maps(stored, part)
    with pytest.raises(UserError, match="the maps were made for the model 'another'"):
        evaluate(options(**chosen, benchmark=("scanrefer",)), {})
    nameless = StoredMaps("logits", "last", model.identity(), {number: torch.zeros(OBJECTS) for number in (0, 1)})
    save_maps(nameless, part)
    other = {"output": str(tmp_path / "other")}
    assert evaluate(options(**chosen, **other, benchmark=("scanqa",)), {})["maps"]["kind"] == "logits"
    with pytest.raises(UserError, match="the maps are of sets without a name"):
        evaluate(options(**chosen, benchmark=("scanqa", "sqa3d")), {})


def test_an_interrupted_evaluation_goes_on_and_ends_as_one_that_was_not(options, tmp_path, monkeypatch):
    original, calls = ChatScene.answer_all, []

    def answer_all(self, scenes, prompts, **given):
        if len(calls) == 4:
            calls.append(None)
            raise KeyboardInterrupt
        calls.append(prompts)
        return original(self, scenes, prompts, **given)

    monkeypatch.setattr(ChatScene, "answer_all", answer_all)
    chosen = {"preset": "fastv_90", "benchmark": ("scanrefer", "multi3drefer")}
    with pytest.raises(KeyboardInterrupt):
        evaluate(options(**chosen), {"layer": "1", "keep": "1"})
    assert (tmp_path / "out" / "scanrefer.json").exists() and not (tmp_path / "out" / "multi3drefer.json").exists()
    parts = evaluate(options(**chosen), {"layer": "1", "keep": "1"})
    assert len(calls) == 4 + 1 + 2
    whole = evaluate(options(**chosen, output=str(tmp_path / "whole")), {"layer": "1", "keep": "1"})
    for one, other in zip(parts["benchmarks"], whole["benchmarks"], strict=True):
        for record in (one, other):
            for name in ("prefill_seconds", "scoring_seconds", "decode_seconds"):
                assert record["report"].pop(name) > 0
        assert one == other
    for name in chosen["benchmark"]:
        assert (tmp_path / "out" / f"{name}.json").read_bytes() == (tmp_path / "whole" / f"{name}.json").read_bytes()


def test_answers_of_another_evaluation_are_not_taken_over(files, options, tmp_path):
    chosen = {"benchmark": ("scanqa",)}
    evaluate(options(**chosen), {})
    with pytest.raises(UserError, match=r"max_new_tokens was 3 and is 2\. .* resume=false"):
        evaluate(options(**chosen, max_new_tokens=2), {})
    with pytest.raises(UserError, match=r"settings\.fastv was None"):
        evaluate(options(**chosen, preset="fastv_90"), {})
    evaluate(options(**chosen, max_new_tokens=2, resume=False), {})
    folder = tmp_path / "annotations"
    folder.mkdir()
    for path in files.annotations.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    asked = json.loads((folder / "scanqa_val.json").read_text())
    (folder / "scanqa_val.json").write_text(json.dumps(asked[::-1]))
    with pytest.raises(UserError, match="answers to other questions of scanqa_val"):
        evaluate(options(**chosen, max_new_tokens=2, annotations=str(folder)), {})


def test_a_run_of_fewer_questions_in_the_same_folder_reports_only_these(options):
    chosen = {"benchmark": ("scanqa",), "preset": "fastv_90"}
    for questions in (2, 1):
        (record,) = evaluate(options(**chosen, questions=questions), {"layer": "1", "keep": "2"})["benchmarks"]
        assert record["questions"] == record["report"]["samples"] == questions
        assert record["kept_objects"] == 2


def test_what_is_wrong_is_said_before_the_model_is_loaded(files, options, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "load_model", lambda options: pytest.fail("the model was loaded"))
    folder = tmp_path / "annotations"
    folder.mkdir()
    for path in files.annotations.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "scan2cap_val_corpus.json").unlink()
    for changes, words in [
        ({"vicuna": None}, "mllm evaluate: vicuna is missing"),
        ({"maps": str(tmp_path / "none")}, "the file of attention maps .* does not exist"),
        ({"annotations": str(folder)}, "Scan2Cap needs the corpus of captions"),
        ({"features": ("a",)}, "features has 1 files"),
        ({"split": "train"}, "has no scanrefer_mask3d_train.json"),
        ({"output": str(files.checkpoint)}, "cannot write to output"),
    ]:
        with pytest.raises(UserError, match=words):
            evaluate(options(**changes), {})


def test_an_order_that_is_drawn_changes_what_the_model_reads_and_not_which_objects_stay(options, maps, tmp_path):
    chosen = {"preset": "gap_sap_90", "maps": maps, "benchmark": ("scanqa",)}
    mass = {"pruning.alpha": 0.21}
    results = [evaluate(options(**chosen, seed=seed, output=str(tmp_path / str(seed))), mass) for seed in (None, 5)]
    assert [result["benchmarks"][0]["kept_objects"] for result in results] == [1, 1]


def test_the_command_prints_the_table(files, tmp_path, capsys):
    words = [f"{name}={getattr(files, name)}" for name in ("vicuna", "checkpoint", "annotations")]
    words += [f"features={files.features_3d},{files.features_2d}", "meteor=false", "benchmark=scanqa"]
    words += ["max_new_tokens=2", "num_beams=1", f"output={tmp_path / 'out'}"]
    assert main(["mllm", "evaluate", *words, "preset=fastv_90", "layer=1", "keep=2"]) == 0
    out = capsys.readouterr().out
    assert "Preset fastv_90 (layer 1, keep 2), split val." in out
    assert "| ScanQA | 2 | CIDEr 0.00, BLEU-4 0.00, EM 0.00 |" in out
    assert f"written: {tmp_path / 'out' / 'scores.json'}" in out
    assert main(["mllm", "evaluate", *words, "presett=off"]) == 2
    assert "unknown key 'presett'. Did you mean preset" in capsys.readouterr().err
    annotations = read_annotations(files.annotations / "scanqa_val.json", "scanqa")
    found = read_predictions(tmp_path / "out" / "scanqa.json", "scanqa")
    assert [one.annotation.prompt for one in found] == [one.prompt for one in annotations]
