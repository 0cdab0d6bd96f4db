"""The predictor of attention maps: what it must not depend on, and its parts against values by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fastsam3d.errors import UserError
from fastsam3d.mllm.predictor.batch import PredictorBatch, predictor_batch
from fastsam3d.mllm.predictor.matching import WordMatching
from fastsam3d.mllm.predictor.network import ABSENT_LOGIT, AttentionPredictor, PredictorConfig, seeded_predictor
from fastsam3d.mllm.predictor.spatial import HIDDEN, hiding, pair_features, spatial_bias
from fastsam3d.mllm.spans import VisualSpan, layout_of

SMALL = PredictorConfig(embedding=16, group_size=3, width=16, heads=2, feed_forward=24, matching=8, boxes="optional")


def predictor(config: PredictorConfig = SMALL) -> AttentionPredictor:
    return seeded_predictor(config, 0).eval()


def random_batch(objects: int = 6, words: int = 5, prompts: int = 2, config: PredictorConfig = SMALL) -> PredictorBatch:
    generator = torch.Generator().manual_seed(1)
    return PredictorBatch(
        torch.randn(prompts, objects, config.group_size, config.embedding, generator=generator),
        torch.randn(prompts, words, config.embedding, generator=generator),
        torch.ones(prompts, objects).bool(),
        torch.ones(prompts, words).bool(),
        torch.rand(prompts, objects, 6, generator=generator),
    )


def test_weights_depend_on_the_seed_and_draw_nothing_from_others():
    state = torch.random.get_rng_state()
    first, same, other = (seeded_predictor(SMALL, seed)(random_batch()) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_default_network_is_small():
    assert 170_000 < sum(weight.numel() for weight in predictor(PredictorConfig()).parameters()) < 250_000


@pytest.mark.parametrize("boxes", [True, False])
def test_padding_changes_nothing_whatever_it_holds(boxes):
    network, batch = predictor(), random_batch()
    batch = batch if boxes else batch.without_boxes()
    expected = network(batch)
    padded = PredictorBatch(
        torch.cat([batch.visual, torch.full((2, 2, 3, 16), float("nan"))], 1),
        torch.cat([torch.full((2, 3, 16), float("inf")), batch.text], 1),
        torch.cat([batch.present, torch.zeros(2, 2).bool()], 1),
        torch.cat([torch.zeros(2, 3).bool(), batch.text_present], 1),
        torch.cat([batch.boxes, torch.full((2, 2, 6), 1e6)], 1) if batch.boxes is not None else None,
    )
    logits = network(padded)
    assert torch.allclose(logits[:, :6], expected, atol=1e-5)
    assert (logits[:, 6:] == ABSENT_LOGIT).all() and logits.dtype == torch.float32
    assert torch.softmax(logits, 1)[:, 6:].sum() == 0


def test_the_order_of_the_objects_and_where_the_scene_lies_do_not_matter():
    network, batch = predictor(), random_batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = replace(
        batch, visual=batch.visual[:, order], boxes=batch.boxes[:, order] + torch.tensor([7, -3, 1, 0, 0, 0])
    )
    assert torch.allclose(network(moved), network(batch)[:, order], atol=1e-4)


def test_the_length_of_embeddings_does_not_matter_and_the_order_of_words_does():
    network, batch = predictor(), random_batch()
    expected = network(batch)
    assert torch.allclose(network(replace(batch, visual=batch.visual * 9, text=batch.text / 5)), expected, atol=1e-4)
    assert not torch.allclose(network(replace(batch, text=batch.text.flip(1))), expected, atol=1e-3)
    assert not torch.allclose(network(batch.without_boxes()), expected, atol=1e-3)


def test_prompts_of_a_batch_do_not_see_each_other():
    network, batch = predictor(), random_batch()
    assert torch.allclose(network(batch.take(slice(1, 2)))[0], network(batch)[1], atol=1e-5)


@pytest.mark.parametrize(("objects", "words", "group_size"), [(1, 1, 3), (4, 1, 1), (1000, 20, 2)])
def test_all_sizes_work(objects, words, group_size):
    config = replace(SMALL, group_size=group_size)
    network, batch = predictor(config), random_batch(objects, words, 1, config)
    assert network(batch).isfinite().all()
    network(replace(batch, present=torch.zeros(1, objects).bool())).sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())


def test_every_weight_learns():
    network = predictor()
    network(random_batch())[:, 0].sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="needs the boxes"):
        predictor(replace(SMALL, boxes="required"))(random_batch().without_boxes())
    with pytest.raises(UserError, match="3 tokens of width 16"):
        predictor(replace(SMALL, group_size=2))(random_batch())
    with pytest.raises(ValueError, match="heads divide the width"):
        replace(SMALL, heads=3)


def test_features_of_pairs_by_hand():
    # Objects at the origin, 3 m along x with 4 m along y, and 2 m above the origin; the largest distance is that of
    # the last two: sqrt(9 + 16 + 4).
    centres = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]])
    pairs = pair_features(centres).double()
    largest = math.sqrt(29)
    assert pairs.shape == (1, 3, 6, 3)
    assert pairs[0, 0, :, 1].tolist() == pytest.approx([1, 5 / largest, 0, 1, -0.8, -0.6], abs=1e-5)
    assert pairs[0, 1, :, 0].tolist() == pytest.approx([1, 5 / largest, 0, 1, 0.8, 0.6], abs=1e-5)
    assert pairs[0, 1, :, 2].tolist() == pytest.approx([1, 1, -2 / largest, 5 / largest, 0.8, 0.6], abs=1e-5)
    assert pairs[0, 2, :, 0].tolist() == pytest.approx([1, 2 / largest, 1, 0, 0, 0], abs=1e-4)
    assert pairs[0, 1, :, 1].tolist() == pytest.approx([1, 0, 0, 1, 0, 0], abs=1e-4)


def test_the_bias_of_a_pair_by_hand():
    conditions = torch.tensor([[[[0.5, 1.0, 0.0, 2.0, 0.0, 0.0]], [[-40.0, 0.0, 0.0, 0.0, 0.0, 0.0]]]])  # N = 2, H = 1
    pairs = torch.zeros(1, 2, 6, 2)
    pairs[0, :, 0] = 1.0
    pairs[0, 0, 1:, 1] = torch.tensor([0.25, 9.0, 0.5, 9.0, 9.0])
    bias = spatial_bias(conditions, pairs, hiding(torch.tensor([[True, False]])))
    assert bias[0, 0, 0, 0].item() == pytest.approx(-math.log1p(math.exp(-0.5)), abs=1e-6)
    assert bias[0, 0, 0, 1].item() == pytest.approx(HIDDEN)  # 0.5 + 0.25 + 1, but not there
    assert bias[0, 0, 1, 0].item() == pytest.approx(math.log(1e-6), abs=1e-4)  # a share is never below 1e-6
    seen = spatial_bias(conditions, pairs, hiding(torch.ones(1, 2).bool()))
    assert seen[0, 0, 0, 1].item() == pytest.approx(-math.log1p(math.exp(-1.75)), abs=1e-6)
    assert torch.allclose(seen, spatial_bias(conditions.requires_grad_(), pairs, hiding(torch.ones(1, 2).bool())))


def test_the_best_matches_of_each_token_by_hand():
    matching = WordMatching(2, 2, 1)
    with torch.no_grad():  # the learned map turns every word to (0, 1)
        matching.to_rank.weight.copy_(torch.tensor([[1.0, 1.0]]))
        matching.from_rank.weight.copy_(torch.tensor([[0.0], [3.0]]))
    # Lengths do not matter: the first object's tokens have the lengths 3 and 2.
    visual = torch.tensor([[[[3.0, 0.0], [0.0, 2.0]], [[0.6, 0.8], [-1.0, 0.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    text = torch.tensor([[[1.0, 0.0], [1.6, 1.2], [0.0, 0.0]]])
    present = torch.tensor([[True, True, False]])
    features = matching(visual, text, present, torch.tensor([[True, True, False]]))[0]
    # The best of each token, the learned of each, the product of the best: then all less the scene's largest.
    assert features.shape == (3, 10) and matching.size == 10
    assert features[0].tolist() == pytest.approx([1.0, 0.6, 0.0, 1.0, 0.6, 0.0, 0.0, -0.8, 0.0, 0.0], abs=1e-6)
    assert features[1].tolist() == pytest.approx(
        [0.96, -0.8, 0.8, 0.0, -0.768, -0.04, -1.4, 0.0, -1.0, -1.368], abs=1e-6
    )


def test_only_candidates_are_looked_at_closely():
    network, batch = predictor(replace(SMALL, candidates=2)), random_batch()
    everything = predictor(replace(SMALL, candidates=6))(batch)
    with torch.no_grad():
        for weight in network.head[-1].parameters():
            weight.zero_()  # then only first logits are left
    first = network(batch)
    closely = predictor(replace(SMALL, candidates=2))(batch)
    changed = (closely != first).sum(1)
    assert changed.tolist() == [2, 2]
    chosen = first.topk(2, dim=1).indices
    assert (closely.gather(1, chosen) != first.gather(1, chosen)).all()
    assert not torch.allclose(everything, closely)


def test_the_batch_of_prompts_with_padding_several_spans_and_unequal_numbers():
    live = torch.ones(3, 20).bool()
    live[1, :5] = False
    spans = [[VisualSpan(2, 4, 2)], [VisualSpan(1, 1, 2), VisualSpan(6, 2, 2)], [VisualSpan(12, 4, 2, [1, 0, 1, 1])]]
    embeddings = torch.arange(60.0).view(3, 20, 1)
    batch = predictor_batch(layout_of(spans, live), embeddings)
    assert batch.visual[0, :, :, 0].tolist() == [[2, 3], [4, 5], [6, 7], [8, 9]]
    assert batch.visual[1, :3, :, 0].tolist() == [[26, 27], [31, 32], [33, 34]]
    assert batch.present.tolist() == [[True] * 4, [True, True, True, False], [True, False, True, True]]
    assert batch.text[0, batch.text_present[0], 0].tolist() == list(range(10, 20))
    assert batch.text[1, batch.text_present[1], 0].tolist() == list(range(35, 40))
    assert batch.text[2, batch.text_present[2], 0].tolist() == [59]  # nothing follows the objects
    with pytest.raises(UserError, match="2 to 3 tokens each"):
        predictor_batch(layout_of([[VisualSpan(1, 2, 2), VisualSpan(6, 1, 3)]], live[:1]), embeddings[:1])


def test_moving_and_taking_keep_what_is_missing():
    batch = random_batch().without_boxes().to("cpu").take(torch.tensor([1]))
    assert batch.boxes is None and batch.visual.shape == (1, 6, 3, 16)
