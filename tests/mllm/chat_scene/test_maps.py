"""Attention maps of questions, against the attention that transformers gives; and questions of several files."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import transformers
from chat_scene_files import OTHER, SCENE, SEGMENTED
from tiny_chat_scene import OBJECTS

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.mllm import load_mllm
from fastsam3d.mllm.benchmarks import BENCHMARKS, read_annotations
from fastsam3d.mllm.benchmarks.annotations import Annotation
from fastsam3d.mllm.chat_scene import answer_questions, maps_of_questions, object_order, read_question_data
from fastsam3d.mllm.chat_scene.maps import ROWS, answer_text
from fastsam3d.mllm.chat_scene.questions import answer_in_turn

SHORT = {"num_beams": 1, "max_new_tokens": 3}
PROMPTS, ANSWERS = ["What color is the chair <OBJ001>?", "Why?"], ["a chair.", ""]


@pytest.fixture(scope="module")
def data(files):
    return read_question_data(files.annotations, ("all",), "val", (files.features_3d, files.features_2d))


def attention(files, model, scene, prompt, answer):
    """Attention of a prompt averaged over layers and heads, (S, S), and the first column of its objects."""
    eager = load_mllm("chat_scene", vicuna=files.vicuna, checkpoint=files.checkpoint, attention="eager")
    inputs = model.inputs([scene], [prompt], answers=[answer])
    layers = eager.language_model(inputs_embeds=inputs.inputs_embeds, output_attentions=True).attentions
    return torch.stack(layers)[:, 0].mean((0, 1)), inputs.visual[0].start


def pieces(files, text):
    """Number of tokens of a text without names of objects; blanks are low bars."""
    return len(transformers.AutoTokenizer.from_pretrained(files.vicuna).backend_tokenizer.model.tokenize(text))


@pytest.mark.parametrize("rows", ROWS)
def test_rows_count_as_they_are_called(rows, files, model, features):
    scene = features.scene(SCENE)
    maps, present = maps_of_questions(model, [scene] * 2, PROMPTS, ANSWERS, rows)
    assert present.tolist() == [[True] * 3 + [False] * 3] * 2
    # The blank after a question is a token of its own here; that before the answer is one with its first letter.
    questions = [pieces(files, "▁▁What▁color▁is▁the▁chair▁") + 1 + pieces(files, "?▁"), pieces(files, "▁▁Why?▁")]
    answers = [pieces(files, "▁a▁chair."), 0]
    for row in range(2):
        read = ANSWERS[row] if rows in ("text", "answer") else ""
        weights, start = attention(files, model, scene, PROMPTS[row], read)
        text = start + 3 * OBJECTS + pieces(files, "▁].▁USER:▁")
        chosen = {
            "text": slice(text, None),
            "last": slice(-1, None),
            "question": slice(text, text + questions[row]),
            "answer": slice(-max(answers[row], 1), None),
        }[rows]
        if rows == "text" and read:
            assert len(weights) == text + questions[row] + pieces(files, "ASSISTANT:") + answers[row]
        expected = weights[chosen, start : start + 3 * OBJECTS].mean(0).view(OBJECTS, 3).sum(1)
        torch.testing.assert_close(maps[row], expected, rtol=1e-4, atol=1e-6)


def test_answers_are_those_of_training_or_the_first_reference():
    asked = Annotation("s", "Why?", references=("dark brown", "black"))
    assert [answer_text(asked, name) for name in ("scanqa", "sqa3d")] == ["Dark brown."] * 2
    assert answer_text(replace(asked, references=("<OBJ001>.",)), "scanrefer") == "<OBJ001>."
    assert answer_text(replace(asked, references=(1, 2)), "multi3drefer") == ""
    assert answer_text(replace(asked, caption="Yes."), "scanqa") == "Yes."
    assert answer_text(replace(asked, references=()), "scanqa") == ""


def test_unknown_rows_are_named(model, features):
    with pytest.raises(UserError, match=r"no rows 'words'. Known: text, last, question, answer"):
        maps_of_questions(model, [features.scene(SCENE)], ["Why?"], [""], "words")


def test_a_model_is_known_whatever_its_precision(files, model):
    half = load_mllm("chat_scene", vicuna=files.vicuna, checkpoint=files.checkpoint, dtype=torch.bfloat16)
    assert half.identity() == model.identity()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.object_proj[0].bias += 1
    assert other.identity() != model.identity()


def test_questions_of_all_benchmarks_have_one_number_each(data):
    questions = data.questions()
    assert [question.number for question in questions] == list(range(12))
    assert [question.benchmark for question in questions[2:4]] == ["scanrefer", "multi3drefer"]
    assert [question.number for question in data.questions(most=1)] == [0, 3, 6, 8, 10]
    assert questions[3].annotation == data.annotations["multi3drefer"][0]
    assert [one.questions for one in data.sets.values()] == [3, 3, 2, 2, 2]
    assert [one.name for one in data.sets.values()] == [f"{name}_val" for name in BENCHMARKS]
    assert data.boxes(SCENE, 6).tolist() == [*SEGMENTED, [0] * 6, [0] * 6]
    assert data.boxes(SCENE, 2).tolist() == SEGMENTED[:2]
    assert len(data.scene(OTHER)) == 4


def test_questions_about_unknown_scenes_keep_the_numbers_of_the_others(data):
    lacking = replace(data, annotations={"a": [replace(data.annotations["scanqa"][0], scene="x")], **data.annotations})
    with pytest.raises(UserError, match="1 of 1 questions are about scenes without features, such as x"):
        lacking.questions()
    with pytest.warns(UserWarning, match="left out"):
        assert [question.number for question in lacking.questions(True)] == list(range(1, 13))
    lacking = replace(data, objects={})
    with pytest.raises(UserError, match="3 of 3 questions are about scenes without an entry of the attribute file"):
        lacking.places("scanrefer")


def test_missing_files_are_named(tmp_path, files):
    with pytest.raises(UserError, match=r"has no scanrefer_mask3d_train\.json"):
        read_question_data(files.annotations, ("scanrefer",), "train")
    with pytest.raises(UserError, match="no benchmark 'scanref'"):
        read_question_data(files.annotations, ("scanref",))
    with pytest.raises(UserError, match="no benchmark is named"):
        read_question_data(files.annotations, ())
    with pytest.raises(UserError, match="does not exist"):
        read_question_data(tmp_path / "nothing")
    with pytest.raises(UserError, match="features has 1 files: give two, 3D first"):
        read_question_data(files.annotations, features=(files.features_3d,))
    with pytest.raises(UserError, match=r"scannet_mask3d_uni3d_feats.pt does not exist"):
        read_question_data(files.annotations)


def test_scores_and_boxes_reach_the_scorers(files, model, features, segmented):
    model = copy.deepcopy(model)
    annotations = read_annotations(files.annotations / "scanqa_val.json", "scanqa")
    settings = {"external": {"enabled": True}, "pruning": {"enabled": True, "layer": 0, "budget": "fixed", "keep": 1}}
    wanted = [torch.tensor([0.0, 1, 0, 0, 0, 0]), torch.tensor([0.0, 0, 1, 9, 9, 9])]  # what fills up never stays
    for seed in (None, 3):
        with fastsam3d.accelerate(model, settings) as acceleration:
            kept = []
            answered = answer_in_turn(
                model, annotations, features, segmented, numbers=[1, 0], seed=seed, scores=wanted.__getitem__, **SHORT
            )
            for ((number, _),) in answered:
                order = torch.tensor(object_order(6, seed, number))
                kept.append(order[acceleration.kept()[0][0].kept].tolist())
            assert kept == [[2], [1]]
            with pytest.raises(UserError, match="external scores are missing"):
                answer_questions(model, annotations, features, segmented, **SHORT)
            with pytest.raises(UserError, match="a question has 3 scores, and its scene has objects up to number 5"):
                next(answer_in_turn(model, annotations, features, numbers=[0], scores=lambda _: torch.zeros(3)))
