"""Maps that the predictor is trained on against those that the library reads from whole prompts."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from fastsam3d.mllm import RowSet, extract_maps
from fastsam3d.mllm.mini.model import ModelConfig, SceneLanguageModel
from fastsam3d.mllm.mini.prompts import build_prompts, observe
from fastsam3d.mllm.predictor.batch import predictor_batch
from fastsam3d.mllm.spans import layout_of
from fastsam3d.training.language_model.aids import initialise
from fastsam3d.training.language_model.batches import make_batch
from fastsam3d.training.language_model.maps import _chosen, attention_maps, maps_of_rooms, predictor_inputs

ROOMS, QUESTIONS, OBJECTS = 2, 3, 8
ROW_SETS = {"last": RowSet("last"), "question": RowSet("text", 1, 1)}


@pytest.fixture(scope="module")
def model() -> SceneLanguageModel:
    made = SceneLanguageModel(ModelConfig(width=32, layers=3, heads=2, feed_forward=48))
    initialise(made, torch.Generator().manual_seed(1))
    return made.eval()


@pytest.mark.parametrize("rows", sorted(ROW_SETS))
def test_maps_are_those_of_whole_prompts(model: SceneLanguageModel, rows: str):
    batch = make_batch(3, ROOMS, OBJECTS, QUESTIONS)
    rooms = [observe(room) for room in batch.rooms for _ in range(QUESTIONS)]
    prompts = build_prompts(model, rooms, [question.text for of_room in batch.questions for question in of_room])
    expected = extract_maps(model.language_model, prompts.visual, [ROW_SETS[rows]], **prompts.inputs)[0]
    expected = expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(attention_maps(model, batch, rows), expected, atol=3e-3, rtol=0.05)  # bfloat16


def test_the_predictor_reads_the_same_in_training_and_in_use(model: SceneLanguageModel):
    batch = make_batch(3, ROOMS, OBJECTS, QUESTIONS)
    rooms = [observe(room) for room in batch.rooms for _ in range(QUESTIONS)]
    prompts = build_prompts(model, rooms, [question.text for of_room in batch.questions for question in of_room])
    live = prompts.inputs["attention_mask"].bool()
    used = predictor_batch(layout_of([[span] for span in prompts.visual], live), prompts.inputs["inputs_embeds"])
    trained = predictor_inputs(model, batch)
    torch.testing.assert_close(used.visual, trained.visual)
    for row in range(ROOMS * QUESTIONS):
        torch.testing.assert_close(used.text[row][used.text_present[row]], trained.text[row][trained.text_present[row]])
    assert trained.boxes is not None
    torch.testing.assert_close(trained.boxes[0], prompts.objects[0]["boxes"])


def test_rows_that_generate_an_answer(model: SceneLanguageModel):
    """The last row of the prompt generates the only word of "blue"; of eight words, seven rows of the answer help."""
    batch = make_batch(3, 1, OBJECTS, 4, ["colour", "caption"])
    for column, question in enumerate(batch.questions[0]):
        asked, words = int(batch.asked[0, column]), len(question.answer.split())
        rows = _chosen(batch, "generation")[0, column].nonzero().flatten().tolist()
        assert rows == list(range(asked, asked + words)) and words == {"colour": 1, "caption": 8}[question.kind]
    of_last, of_all = attention_maps(model, batch, "last"), attention_maps(model, batch, "generation")
    for column, question in enumerate(batch.questions[0]):
        assert torch.allclose(of_last[column], of_all[column], atol=1e-6) == (question.kind == "colour")


def test_a_source_gives_the_same_batch_for_the_same_step(model: SceneLanguageModel):
    source = maps_of_rooms(model, "answer", rooms=1, questions=4, objects=(6, 9))
    (first, target), (again, same), (_, other) = source(0, 5), source(0, 5), source(0, 6)
    assert torch.equal(first.text, again.text) and torch.equal(target, same)
    assert target.shape != other.shape or not torch.equal(target, other)
    torch.testing.assert_close(target.sum(1), torch.ones(len(target)))
