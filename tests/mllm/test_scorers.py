"""Scores of a toy with two layers against attention that the model itself computes, and rankings by hand."""

from __future__ import annotations

import pytest
import torch
from tiny_language_models import FAMILIES, SPANS, prompts, tiny_model

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.mllm import Placeholder, RowSet, Scorer, Technique, VisualSpan, extract_maps
from fastsam3d.mllm.capabilities import SCORER, STAGES
from fastsam3d.mllm.registry import REGISTRY
from fastsam3d.mllm.techniques.dart import least_similar_first
from fastsam3d.mllm.techniques.divprune import most_different_first
from fastsam3d.mllm.techniques.random_groups import RandomConfig
from fastsam3d.mllm.techniques.raters import rater_weights


def test_the_most_different_are_chosen_first():
    # Points on a line at 0, 1, 5, 6, 20: 20 is farthest from its neighbour, then 0, then 6, then 5 and 1 tie at 1.
    places = torch.tensor([0.0, 1.0, 5.0, 6.0, 20.0])
    distances = (places[:, None] - places[None]).abs()[None]
    present = torch.ones(1, 5).bool()
    assert most_different_first(distances, present, 5).tolist() == [[-1, -3, -4, -2, 0]]
    assert most_different_first(distances, present, 2).tolist() == [[-1, -5, -5, -5, 0]]
    # Without the point at 20 the pair 1 and 5 has the same nearest distance as all others: the first is taken.
    assert most_different_first(distances, torch.tensor([[1, 1, 1, 1, 0]]).bool(), 2).tolist() == [[0, -5, -5, -1, -5]]


def test_a_sample_with_few_groups_is_ranked_the_same_beside_one_with_many():
    # Two groups at equal distances: the first is first, however many groups the other sample needs.
    distances, present = torch.ones(2, 5, 5) - torch.eye(5), torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    for count in (2, 3, 5):
        assert most_different_first(distances, present, count)[0].tolist() == [0, -1, -5, -5, -5]
    late = torch.tensor([[0, 0, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    assert most_different_first(distances, late, 4)[0].tolist() == [-5, -5, 0, -5, -5]


def test_pivots_stay_and_then_what_resembles_them_least():
    features = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-3.0, 0.0], [1.0, 1.0]]])
    norms, present = torch.tensor([[9.0, 1.0, 1.0, 1.0, 99.0]]), torch.tensor([[1, 1, 1, 1, 0]]).bool()
    scores = least_similar_first(norms, features, present, 1)
    assert scores[0, :4].tolist() == [2.0, -1.0, 0.0, 1.0]


def test_raters_are_the_words_that_resemble_the_visual_tokens():
    # One visual token (2, 0), three words: their products with it are 6, 0 and 6, of which the softmax makes raters.
    hidden = torch.tensor([[[2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [3.0, 0.0]]])
    text = torch.tensor([[False, True, True, True]])
    assert rater_weights(hidden, text, ~text).tolist() == [[0, 0.5, 0, 0.5]]
    assert rater_weights(hidden, text, torch.zeros(1, 4).bool()).tolist()[0] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])


def spied(model, settings, technique, inputs):
    """The scores that a technique gave."""
    seen = []
    make = REGISTRY[technique].make

    class Spy(Scorer):
        def __init__(self, config):
            self._inner = make(config)
            self.needs_layer, self.scale = self._inner.needs_layer, self._inner.scale

        @property
        def full_run(self):
            return self._inner.full_run

        def score(self, batch):
            seen.append(self._inner.score(batch))
            return seen[-1]

    before = REGISTRY[technique]
    REGISTRY.replace(Technique(technique, before.config, SCORER, STAGES, Spy))
    try:
        with fastsam3d.accelerate(model, settings), torch.no_grad():
            model(**inputs, visual=SPANS)
    finally:
        REGISTRY.replace(before)
    return seen[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("technique", ["fastv", "text_rows", "oracle"])
def test_attention_scores_equal_the_attention_of_the_model(family, technique):
    pytest.importorskip("transformers", reason="transformers is not installed")
    model, inputs = tiny_model(family, layers=2), prompts()
    settings = {"pruning": {"enabled": True, "layer": 1, "share": 0.5}, technique: {"enabled": True}}
    if technique != "fastv":
        settings[technique] |= {"skip_first": 2, "skip_last": 1} | ({"rows": "text"} if technique == "oracle" else {})
    scores = spied(model, settings, technique, inputs)
    eager = tiny_model(family, "eager", layers=2)
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True).attentions
    whole = torch.stack(attentions).mean(0) if technique == "oracle" else attentions[0]
    for row, (length, starts, end) in enumerate(((40, (4,), 28), (33, (3,), 27), (37, (2, 15), 27))):
        before = 40 - length
        rows = slice(39, 40) if technique == "fastv" else slice(before + end + 2, 39)
        columns = whole[row].mean(0)[rows].mean(0)[before:]
        groups = 8 // len(starts)
        expected = torch.cat([columns[start : start + 3 * groups].view(groups, 3).sum(1) for start in starts])
        assert torch.allclose(scores[row], expected, atol=1e-5)


def test_maps_of_several_row_sets_are_extracted_in_one_run():
    pytest.importorskip("transformers", reason="transformers is not installed")
    model, inputs = tiny_model(), prompts()
    before = [dict(vars(module)) for module in model.modules()]
    maps = extract_maps(model, SPANS, [RowSet("last"), RowSet(skip_last=[3, 2, 1])], **inputs)
    assert [dict(vars(module)) for module in model.modules()] == before
    assert maps.shape == (2, 3, 8)
    placed = {"input_ids": inputs["input_ids"].clone(), "attention_mask": inputs["attention_mask"]}
    placed["input_ids"][placed["input_ids"] == 96] = 95
    placed["input_ids"][:, 12:24] = 96
    starts = [VisualSpan(12 - before, 4, 3) for before in (0, 7, 3)]
    found = extract_maps(model, Placeholder(96, 3), [RowSet("last")], **placed)
    assert torch.equal(found, extract_maps(model, starts, [RowSet("last")], **placed))
    with pytest.raises(UserError, match="give input_ids or inputs_embeds"):
        extract_maps(model, SPANS, [RowSet("last")])
    alone = extract_maps(model, [SPANS[1]], [RowSet(skip_last=2)], input_ids=inputs["input_ids"][1:2, 7:])
    assert torch.allclose(maps[1, 1], alone[0, 0], atol=1e-5)


def test_random_scores_depend_on_seed_and_number_and_not_on_the_batch():
    pytest.importorskip("transformers", reason="transformers is not installed")
    model, inputs = tiny_model(), prompts((40, 40, 40))
    state = torch.random.get_rng_state()
    scores = spied(model, "random_90", "random", inputs)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(scores, spied(model, "random_90", "random", inputs))
    assert not torch.equal(scores[0], scores[1])
    assert RandomConfig().seed == 0


def test_a_scorer_of_ones_own_is_one_registration():
    pytest.importorskip("transformers", reason="transformers is not installed")

    class LastGroups(Scorer):
        def __init__(self, config):
            pass

        def score(self, batch):
            seen.append((batch.layout.present.shape, batch.prompts.input_ids.shape, batch.model is model))
            return torch.arange(8.0).expand(batch.layout.present.shape)

    seen = []
    before = REGISTRY["random"]
    REGISTRY.replace(Technique("random", RandomConfig, SCORER, STAGES, LastGroups))
    try:
        model, inputs = tiny_model(), prompts()
        with fastsam3d.accelerate(model, "random_90", pruning={"budget": "fixed", "keep": 1}), torch.no_grad():
            model.generate(**inputs, visual=SPANS, num_beams=3, max_new_tokens=2)
    finally:
        REGISTRY.replace(before)
    assert seen == [((3, 8), (3, 40), True)]  # beams are scored once a sample
    assert RowSet().which == "text"
