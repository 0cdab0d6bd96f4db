"""Training of a predictor: the loss by hand, a rule that it must find, and a run that is interrupted."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_language_models import SPANS, prompts, tiny_model

from fastsam3d.errors import UserError
from fastsam3d.mllm import RowSet, extract_maps
from fastsam3d.mllm.predictor.batch import PredictorBatch
from fastsam3d.mllm.predictor.files import load_predictor
from fastsam3d.mllm.predictor.network import PredictorConfig
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.options import PredictorOptions
from fastsam3d.training.predictor import training
from fastsam3d.training.predictor.extraction import extracted_batch
from fastsam3d.training.predictor.losses import divergence, overlap
from fastsam3d.training.predictor.training import FILE, train

SIZES = PredictorConfig(width=32, heads=2, feed_forward=32, text_feed_forward=32, matching=8, boxes="optional")


def named_objects(seed: int, step: int, prompts: int = 16) -> tuple[PredictorBatch, torch.Tensor]:
    """Half of the words name an object by its first token; those objects get ten times the attention of the others."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    visual = torch.randn(prompts, 12, 2, 16, generator=generator)
    present = torch.rand(prompts, 12, generator=generator) > 0.2
    present[:, :3] = True
    named = torch.zeros(prompts, 12).bool()
    named[:, :2] = True
    text = torch.cat([visual[:, :2, 0], torch.randn(prompts, 2, 16, generator=generator)], 1)
    order = torch.randperm(12, generator=generator)
    boxes = torch.rand(prompts, 12, 6, generator=generator)
    batch = PredictorBatch(visual[:, order], text, present[:, order], torch.ones(prompts, 4).bool(), boxes)
    return batch, 0.1 + 0.9 * named[:, order]


def test_the_divergence_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0), 50.0], [1.0, 2.0, 3.0]])
    target = torch.tensor([[2.0, 2.0, 9.0], [0.0, 0.0, 0.0]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    # Shares 1/2 and 1/2 against 1/4 and 3/4; the second prompt has no attention and does not count.
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(logits, target, present).item() == pytest.approx(expected, abs=1e-6)
    assert divergence(target.log(), target, present)[None].isfinite().all()
    assert divergence((7 * target[:1]).log(), target[:1], present[:1]).item() == pytest.approx(0, abs=1e-6)


def test_gradients_stay_finite_where_attention_is_zero():
    logits = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
    divergence(logits, torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[True, True, False]])).backward()
    assert torch.allclose(logits.grad, torch.tensor([[1.0, -1.0, 0.0]]))


def test_the_overlap_of_the_first_by_hand():
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0, 9.0]])
    target = torch.tensor([[1.0, 5.0, 2.0, 4.0, 9.0]])
    present = torch.tensor([[True, True, True, True, False]])
    # The first two: objects 0 and 1, and 1 and 3. The first three: 0, 1, 2, and 1, 3, 2.
    assert overlap(logits, target, present, 2).item() == pytest.approx(1 / 2)
    assert overlap(logits, target, present, 3).item() == pytest.approx(2 / 3)
    assert overlap(logits, target, present, 20).item() == 1


def test_it_finds_the_objects_that_words_name(tmp_path: Path):
    options = PredictorOptions(
        output=str(tmp_path), steps=60, learning_rate=5e-3, average=0.9, measure_every=30, held_out_batches=2
    )
    network = train(options, named_objects, lambda seed, number: named_objects(seed, 10_000 + number), SIZES)
    batch, target = named_objects(0, 77_777)
    uniform = divergence(torch.zeros_like(target), target, batch.present)
    for given in (batch, batch.without_boxes()):
        assert divergence(network(given), target, given.present) < 0.2 * uniform
        assert overlap(network(given), target, given.present, 2) > 0.95
    loaded = load_predictor(tmp_path / FILE)
    assert (loaded.config.embedding, loaded.config.group_size, loaded.config.width) == (16, 2, 32)
    assert torch.equal(loaded(batch), network(batch))
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "held_out_overlap_5" in line]
    assert len(measured) == 2
    assert measured[1]["held_out_divergence"] < measured[0]["held_out_divergence"]


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Interrupted(Exception):
        pass

    def breaks(seed: int, step: int) -> tuple[PredictorBatch, torch.Tensor]:
        if step == 3:
            raise Interrupted
        return named_objects(seed, step)

    monkeypatch.setattr(training, "TrainingLoop", partial(TrainingLoop, save_seconds=-1.0))  # after every step
    whole, parts = (PredictorOptions(output=str(tmp_path / name), steps=5) for name in ("whole", "parts"))
    state = torch.random.get_rng_state()
    expected = train(whole, named_objects, config=SIZES).state_dict()
    with pytest.raises(Interrupted):
        train(parts, breaks, config=SIZES)
    assert not (tmp_path / "parts" / FILE).exists()
    found = train(parts, named_objects, config=SIZES).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_inputs_and_maps_of_the_same_prompts():
    pytest.importorskip("transformers", reason="transformers is not installed")
    model, inputs = tiny_model(layers=2), prompts()
    batch, target = extracted_batch(model, SPANS, RowSet("last"), torch.zeros(3, 8, 6), **inputs)
    assert torch.equal(target, extract_maps(model, SPANS, [RowSet("last")], **inputs)[0])
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    assert torch.equal(batch.visual[1, 2, 1], embeddings[1, 7 + 3 + 3 * 2 + 1])  # 7 of padding, the span begins at 3
    assert batch.text_present.sum(1).tolist() == [12, 6, 10]
    assert batch.boxes is not None and not batch.visual.requires_grad


def test_boxes_that_are_needed_and_missing_are_refused(tmp_path: Path):
    options = PredictorOptions(output=str(tmp_path), steps=1)
    without = lambda seed, step: (named_objects(seed, step)[0].without_boxes(), named_objects(seed, step)[1])  # noqa: E731
    with pytest.raises(UserError, match="batches have no boxes"):
        train(options, without)
