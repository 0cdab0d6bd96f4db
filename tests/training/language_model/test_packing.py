"""Packed reading of many questions against the model's own forward, one question at a time."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from fastsam3d.mllm.mini.model import ModelConfig, SceneLanguageModel
from fastsam3d.training.language_model.aids import initialise
from fastsam3d.training.language_model.batches import make_batch
from fastsam3d.training.language_model.training import answer_loss, read


@pytest.fixture(scope="module")
def model() -> SceneLanguageModel:
    made = SceneLanguageModel(ModelConfig(width=32, layers=3, heads=2, feed_forward=48))
    initialise(made, torch.Generator().manual_seed(0))
    made.language_model.set_attn_implementation("eager")
    return made.eval()


@torch.no_grad()
def test_a_packed_pass_equals_one_sequence_a_question(model: SceneLanguageModel):
    batch = make_batch(first_seed=5, rooms=2, objects=9, questions=5)
    packed = read(model, batch, batch.asked[..., None], watched=(1,), averaged=True)
    head = model.embed(torch.tensor([1, 3]))
    assert packed.average is not None
    for row in range(2):
        objects = model.object_tokens(batch.identifiers[row], batch.geometry[row], batch.appearance[row])
        before = len(head) + len(objects)
        for column in range(5):
            words = batch.words[row, column]
            words = words[: int((words > 0).sum())]
            whole = torch.cat([head, objects, model.embed(words)])[None]
            output = model.language_model.model(inputs_embeds=whole, output_attentions=True)
            torch.testing.assert_close(output.last_hidden_state[0, before:], packed.hidden[row, column, : len(words)])
            last = before + int(batch.asked[row, column])
            by_layer = torch.stack([layer[0].mean(0)[last, :before] for layer in output.attentions])
            torch.testing.assert_close(by_layer[1], packed.looked_at[1][row, column, 0])
            to_words = output.attentions[1][0].mean(0)[last, before:]
            torch.testing.assert_close(to_words, packed.words_looked_at[1][row, column, 0, : len(words)])
            torch.testing.assert_close(by_layer.mean(0), packed.average[row, column, 0])


@torch.no_grad()
def test_the_answer_loss_is_that_of_the_next_tokens(model: SceneLanguageModel):
    batch = make_batch(first_seed=8, rooms=1, objects=7, questions=3)
    loss, right = answer_loss(model, read(model, batch), batch)
    head = model.embed(torch.tensor([1, 3]))
    objects = model.object_tokens(batch.identifiers[0], batch.geometry[0], batch.appearance[0])
    losses, all_right = [], []
    for words, start in zip(batch.words[0], batch.asked[0].tolist(), strict=True):
        words = words[: int((words > 0).sum())]
        whole = torch.cat([head, objects, model.embed(words)])[None]
        logits = model.language_model(inputs_embeds=whole).logits[0, len(head) + len(objects) :].log_softmax(-1)
        places = range(start, len(words) - 1)
        losses += [-float(logits[place, words[place + 1]]) for place in places]
        all_right.append(all(int(logits[place].argmax()) == int(words[place + 1]) for place in places))
    assert float(loss) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert right[0].tolist() == all_right
