"""The scorer `gap`: what the predictor is given of a prompt, and that what it says is what stays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_language_models import prompts, tiny_model

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.mllm import VisualSpan
from fastsam3d.mllm.predictor.batch import PredictorBatch
from fastsam3d.mllm.predictor.files import save_predictor
from fastsam3d.mllm.predictor.network import PredictorConfig, seeded_predictor

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'fastsam3d[mllm]'")

SPANS = [VisualSpan(4, 8, 3), VisualSpan(3, 5, 3, [1, 1, 0, 1, 1]), [VisualSpan(2, 2, 3), VisualSpan(15, 4, 3)]]
GROUPS = (8, 5, 6)
STARTS = ([4 + 3 * n for n in range(8)], [3 + 3 * n for n in range(5)], [2, 5, 15, 18, 21, 24])
KEEP_TWO = {"pruning": {"budget": "fixed", "keep": 2}}


def predictor(boxes: str = "optional"):
    sizes = {"embedding": 32, "group_size": 3, "width": 16, "heads": 2, "feed_forward": 16, "matching": 4}
    network = seeded_predictor(PredictorConfig(**sizes, boxes=boxes), 0).eval()
    network.head[-1].weight.data *= 30  # so that its choice is clear
    return network


def scene_boxes():
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(count, 6, generator=generator) for count in GROUPS]


def carrying(boxes: str = "optional"):
    """A model that carries a predictor, and what the predictor is given and says in each call."""
    model, seen = tiny_model(), []
    model.attention_predictor = predictor(boxes)
    model.attention_predictor.register_forward_hook(lambda module, args, logits: seen.append((args[0], logits)))
    return model, seen


def expected_logits(model, boxes):
    """Logits of each sample alone, its inputs taken out by loops."""
    network, inputs, result = predictor(), prompts(), []
    for row, (length, starts) in enumerate(zip((40, 33, 37), STARTS, strict=True)):
        vectors = model.get_input_embeddings()(inputs["input_ids"][row, -length:]).detach()
        visual = torch.stack([torch.stack([vectors[start + k] for k in range(3)]) for start in starts])[None]
        present = torch.tensor([[n != 2 or row != 1 for n in range(len(starts))]])
        text = vectors[starts[-1] + 3 :][None]
        of_row = None if boxes is None or boxes[row] is None else boxes[row][None]
        batch = PredictorBatch(visual, text, present, torch.ones(1, text.shape[1]).bool(), of_row)
        with torch.no_grad():
            result.append(network(batch)[0])
    return result


def test_the_predictor_reads_embeddings_words_and_boxes_of_each_sample():
    model, seen = carrying()
    boxes = scene_boxes()
    boxes[1][2] = float("nan")  # of an object that only fills up
    objects = [{"boxes": boxes[0]}, SimpleNamespace(boxes=boxes[1].tolist()), {"boxes": boxes[2], "name": "scene"}]
    with fastsam3d.accelerate(model, "gap_fixed_90", **KEEP_TWO) as acceleration, torch.no_grad():
        model(**prompts(), visual=SPANS, objects=objects)
        report = acceleration.report()
    ((_, logits),) = seen
    for row, expected in enumerate(expected_logits(model, boxes)):
        assert torch.allclose(logits[row, : GROUPS[row]], expected, atol=1e-4)
        assert (logits[row, GROUPS[row] :] == -1e4).all()
    assert report.groups_kept == 6 and report.tokens_by_layer == [110 - 3 * (6 + 3 + 4)] * 4
    assert report.scoring_seconds > 0


def test_what_the_predictor_says_is_what_stays():
    model, seen = carrying()
    objects = [{"boxes": boxes} for boxes in scene_boxes()]
    results = []
    for settings in (
        {"pruning": {"budget": "mass", "alpha": 0.6}},
        {"pruning": {"budget": "mass", "alpha": 0.6, "mask": True}},
    ):
        with fastsam3d.accelerate(model, "gap_sap_90", **settings) as acceleration:
            results.append(model.generate(**prompts(), visual=SPANS, objects=objects, num_beams=2, max_new_tokens=5))
            kept = acceleration.report().groups_kept
    assert torch.equal(*results)
    assert [len(batch.present) for batch, _ in seen] == [3, 3]  # once a sample, whatever the beams
    scores = [seen[0][1][row, : GROUPS[row]] for row in range(3)]
    settings = {"pruning": {"enabled": True, "layer": 0, "budget": "mass", "alpha": 0.6}, "external": True}
    with fastsam3d.accelerate(model, settings) as acceleration:
        external = model.generate(**prompts(), visual=SPANS, objects=scores, num_beams=2, max_new_tokens=5)
    assert torch.equal(external, results[0])
    assert acceleration.report().groups_kept == kept and 3 <= kept < 18


def test_boxes_may_be_missing_where_the_predictor_learned_without():
    model, seen = carrying()
    boxes = [scene_boxes()[0], None, scene_boxes()[2]]
    with fastsam3d.accelerate(model, "gap_fixed_90", **KEEP_TWO), torch.no_grad():
        model(**prompts(), visual=SPANS)
        model(**prompts(), visual=SPANS, objects=[{"boxes": boxes[0]}, None, {"boxes": boxes[2]}])
    expected = expected_logits(model, None)
    assert all(torch.allclose(seen[0][1][row, : GROUPS[row]], expected[row], atol=1e-4) for row in range(3))
    expected = expected_logits(model, boxes)
    with_boxes, without = seen[1][1], seen[2][1]
    for found, wanted in ((with_boxes[0], expected[0]), (without[0], expected[1]), (with_boxes[1], expected[2])):
        assert torch.allclose(found[: len(wanted)], wanted, atol=1e-4)


def test_embeddings_in_place_of_ids_and_a_cut_behind_the_first_layer_read_the_same():
    model, seen = carrying()
    inputs = prompts()
    embedded = {"inputs_embeds": model.get_input_embeddings()(inputs["input_ids"]).detach()}
    embedded["attention_mask"] = inputs["attention_mask"]
    with torch.no_grad():
        for given, preset in ((inputs, "gap_fixed_90"), (embedded, "gap_fixed_90"), (inputs, "gap_35")):
            with fastsam3d.accelerate(model, preset):
                model(**given, visual=SPANS)
    assert torch.equal(seen[0][1], seen[1][1]) and torch.equal(seen[0][1], seen[2][1])


def test_a_predictor_from_a_file_comes_before_the_one_of_the_model(tmp_path):
    model, seen = carrying()
    path = str(save_predictor(predictor(), tmp_path / "predictor.safetensors"))
    with torch.no_grad(), fastsam3d.accelerate(model, "gap_fixed_90", gap={"predictor": path}):
        first = model(**prompts(), visual=SPANS).logits
    assert seen == []
    with torch.no_grad(), fastsam3d.accelerate(model, "gap_fixed_90"):
        assert torch.equal(model(**prompts(), visual=SPANS).logits, first)
    del model.attention_predictor


def test_a_model_in_half_precision_is_scored_in_full():
    model, seen = carrying()
    model = model.to(torch.bfloat16)
    with torch.no_grad(), fastsam3d.accelerate(model, "gap_fixed_90"):
        model(**prompts(), visual=SPANS)
    assert model.attention_predictor.head[-1].weight.dtype == torch.bfloat16
    assert seen[0][1].dtype == torch.float32


def test_a_missing_predictor_is_said_before_anything_is_attached(tmp_path):
    model = tiny_model()
    before = dict(vars(model))
    with pytest.raises(UserError, match=r"gap needs a predictor .* LlamaForCausalLM"):
        fastsam3d.accelerate(model, "balanced")
    with pytest.raises(UserError, match="does not exist"):
        fastsam3d.accelerate(model, "balanced", gap={"predictor": str(tmp_path / "none")})
    with pytest.raises(UserError, match=r"gap.predictor is 3: give text"):
        fastsam3d.accelerate(model, "balanced", gap={"predictor": 3})
    assert dict(vars(model)) == before


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([None], "1 entries for a batch of 3"),
        ([{"boxes": torch.zeros(7, 6)}, None, None], r"shape \(7, 6\), and its spans have 8 groups"),
        ([{"boxes": torch.full((8, 6), float("nan"))}, None, None], "sample 0 have numbers that are not finite"),
        ([None, {"boxes": [[1, 2], [3]]}, None], "boxes of sample 1 are no rows of numbers"),
        ([None, None, torch.zeros(8, 6)], "objects holds a Tensor for sample 2"),
    ],
)
def test_boxes_are_checked(objects, words):
    model, _ = carrying()
    with fastsam3d.accelerate(model, "gap_fixed_90"), torch.no_grad(), pytest.raises(UserError, match=words):
        model(**prompts(), visual=SPANS, objects=objects)


def test_a_predictor_that_needs_boxes_says_so():
    model, _ = carrying("required")
    with (
        fastsam3d.accelerate(model, "gap_fixed_90"),
        torch.no_grad(),
        pytest.raises(UserError, match="needs the boxes"),
    ):
        model(**prompts(), visual=SPANS)


@pytest.mark.parametrize(
    ("name", "share"), [("gap_35", 0.35), ("gap_65", 0.65), ("gap_90", 0.891), ("gap_fixed_90", 0.9)]
)
def test_presets_leave_out_what_their_name_says(name, share):
    deep = tiny_model(layers=32)
    deep.config.max_position_embeddings = 512
    deep.attention_predictor = predictor()
    with fastsam3d.accelerate(deep, name) as acceleration, torch.no_grad():
        deep(**prompts((320,)), visual=VisualSpan(5, 100, 3))
    assert acceleration.report().pruned_share == pytest.approx(share, abs=0.001)


def test_the_adaptive_presets_keep_fewer_objects_where_the_prediction_is_clear():
    kept: dict[str, list[int]] = {"gap_sap_90": [], "balanced": []}
    for sharpness in (0.0, 0.1, 1000.0):
        model, _ = carrying()
        for layer in (model.attention_predictor.first_head, model.attention_predictor.head[-1]):
            layer.weight.data *= sharpness
            layer.bias.data *= sharpness
        for name, counts in kept.items():
            with fastsam3d.accelerate(model, name, pruning={"alpha": 0.5}) as acceleration, torch.no_grad():
                model(**prompts(), visual=SPANS)
            counts.append(acceleration.report().groups_kept)
    # Of the 8, 4 and 6 real objects, where all are alike: half of the mass; all that hold the even share.
    assert kept["gap_sap_90"][0] == 4 + 2 + 3 and kept["balanced"][0] == 8 + 4 + 6
    assert 3 < kept["gap_sap_90"][1] < 9 and 3 < kept["balanced"][1] < 18
    assert [counts[2] for counts in kept.values()] == [3, 3]
