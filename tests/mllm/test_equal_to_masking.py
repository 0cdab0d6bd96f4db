"""Tokens that leave and tokens that are masked: the same answers, in every combination."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_language_models import FAMILIES, SPANS, cached, masked_logits, prompts, tiny_model

import fastsam3d
from fastsam3d.mllm import VisualSpan

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'fastsam3d[mllm]'")

EQUAL, UNEQUAL = {"budget": "share", "share": 0.25}, {"budget": "mass", "alpha": 0.3}
DECODING = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "penalty": {"repetition_penalty": 3.0},
}


def generated(model, inputs, preset, pruning, spans=SPANS, **options):
    """Sequences and the logits of every step."""
    with fastsam3d.accelerate(model, preset, pruning=pruning) as acceleration, torch.random.fork_rng():
        torch.manual_seed(5)
        result = model.generate(
            **inputs, visual=spans, max_new_tokens=8, return_dict_in_generate=True, output_logits=True, **options
        )
        return result.sequences, torch.stack(result.logits), acceleration.report()


@pytest.mark.parametrize("decoding", DECODING)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_generation_is_token_identical(attention, decoding):
    model = tiny_model(attention=attention)
    for layer, budget, lengths in itertools.product((0, 2, 3), (EQUAL, UNEQUAL), ((40, 33, 37), (40, 40, 40))):
        runs = [
            generated(model, prompts(lengths), "random_90", {"layer": layer, "mask": m} | budget, **DECODING[decoding])
            for m in (False, True)
        ]
        assert torch.equal(runs[0][0], runs[1][0]), (layer, budget, lengths)
        assert torch.allclose(runs[0][1], runs[1][1], atol=2e-5)
        assert runs[0][2].tokens_by_layer == runs[1][2].tokens_by_layer
        assert runs[0][2].tokens_by_layer[layer] < sum(lengths)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("technique", ["fastv", "text_rows", "oracle", "divprune", "dart", "pyramid", "raters"])
def test_every_scorer_in_every_family(family, technique):
    model, settings = tiny_model(family), {technique: True}
    pruning = {"enabled": True, "layer": 1, "budget": "share", "share": 0.5}
    runs = [
        generated(model, prompts(), settings, pruning | {"mask": mask}, num_beams=2) for mask in (False, True)
    ]
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.allclose(runs[0][1], runs[1][1], atol=2e-5)
    counts = runs[0][2].tokens_by_layer
    assert counts[0] == 110 and counts[1] == 110 - 3 * 3 * 4
    assert len(set(counts)) == (4 if technique == "pyramid" else 2)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_logits_equal_a_reference_written_out_by_hand(layer):
    model, ids = tiny_model(), prompts((40,))["input_ids"]
    scores = [[0.1, 0.9, 0.2, 0.8, 0.3, 0.4, 0.5, 0.6]]
    dropped = [column for column in range(4, 28) if (column - 4) // 3 not in (1, 3)]
    settings = {"pruning": {"enabled": True, "layer": layer, "budget": "fixed", "keep": 2}, "external": True}
    with fastsam3d.accelerate(model, settings), torch.no_grad():
        logits = model(input_ids=ids, visual=VisualSpan(4, 8, 3), objects=scores).logits[0]
    expected = masked_logits(model, ids, layer, dropped)
    kept = [column for column in range(40) if column not in dropped]
    assert logits.shape[0] == len(kept)
    assert torch.allclose(logits, expected[kept], atol=2e-5)
    with torch.no_grad():
        assert not torch.allclose(logits, model(input_ids=ids).logits[0, kept], atol=0.1)


def test_groups_of_unequal_sizes_leave_whole():
    """Five objects of 2, 5, 1, 1 and 7 tokens, the last two apart from the others; the second and the fifth stay."""
    model, ids = tiny_model(), prompts((40,))["input_ids"]
    spans = [[VisualSpan(4, 1, 2), VisualSpan(6, 1, 5), VisualSpan(11, 1), VisualSpan(20, 1), VisualSpan(22, 1, 7)]]
    scores = [[0.1, 0.9, 0.2, 0.3, 0.8]]
    settings = {"pruning": {"enabled": True, "layer": 1, "budget": "fixed", "keep": 2}, "external": True}
    with fastsam3d.accelerate(model, settings) as acceleration, torch.no_grad():
        logits = model(input_ids=ids, visual=spans, objects=scores).logits[0]
        assert acceleration.report().visual_by_layer == [16, 12, 12, 12]
    kept = [column for column in range(40) if column not in (4, 5, 11, 20)]
    assert torch.allclose(logits, masked_logits(model, ids, 1, [4, 5, 11, 20])[kept], atol=2e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, attention):
    model = tiny_model(attention=attention).to(dtype)
    runs = [generated(model, prompts(), "fastv_90", {"layer": 2, "mask": mask}) for mask in (False, True)]
    assert torch.allclose(runs[0][1][0], runs[1][1][0], atol=0.2)  # rounding of sums in another order
    assert runs[0][2].cache_bytes_full == 110 * 4 * 2 * 2 * 8 * 2


def test_a_loop_without_positions_counts_on_from_the_whole_prompt():
    model, inputs = tiny_model(), prompts((40,))
    outputs = []
    with fastsam3d.accelerate(model, "random_90") as acceleration, torch.no_grad(), acceleration.visual(SPANS[0]):
        expected = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, 40:].tolist()
        acceleration.reset_report()  # the draw depends on the number of the sample
        result = model(**inputs, use_cache=True)
        for _ in range(5):
            outputs.append(int(result.logits[0, -1].argmax()))
            cache = getattr(result, "cache", None) or result.past_key_values
            result = model(input_ids=torch.tensor([[outputs[-1]]]), **cached(cache, model))
    assert outputs == expected


def test_embeddings_in_place_of_ids():
    model, inputs = tiny_model(), prompts()
    embedded = {"inputs_embeds": model.get_input_embeddings()(inputs["input_ids"]).detach()}
    embedded["attention_mask"] = inputs["attention_mask"]
    pruning = {"layer": 1, "budget": "share", "share": 0.25}
    first, second = (generated(model, given, "fastv_90", pruning)[1] for given in (inputs, embedded))
    assert torch.equal(first, second)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bit_identical_where_nothing_leaves(attention):
    model, inputs = tiny_model(attention=attention), prompts()
    plain = model.generate(**inputs, max_new_tokens=8, return_dict_in_generate=True, output_logits=True)
    for preset, pruning in (("off", {}), ("fastv_90", {"share": 1.0}), ("oracle_90", {"share": 1.0, "layer": 0})):
        sequences, logits, report = generated(model, inputs, preset, pruning)
        assert torch.equal(sequences, plain.sequences) and torch.equal(logits, torch.stack(plain.logits))
        assert report.pruned_share == 0 and report.tokens_by_layer == [110] * 4


def test_padding_objects_leave_first_and_change_nothing():
    """Two prompts that differ in what a padding object holds answer alike when it leaves at layer 0."""
    model, inputs = tiny_model(), prompts((40,))
    span = VisualSpan(4, 8, 3, [True, True, False, True, True, True, True, False])
    other = {name: value.clone() for name, value in inputs.items()}
    other["input_ids"][0, 10:13] = 5
    settings = {"share": 1.0, "layer": 0}
    runs = [generated(model, given, "random_90", settings, span)[1] for given in (inputs, other)]
    assert torch.equal(runs[0], runs[1])


def test_tokens_hidden_within_a_prompt():
    """The mask hides two tokens of the text before the objects and the whole third object, which counts for nothing."""
    model, inputs = tiny_model(), prompts((40,))
    inputs["attention_mask"][0, [1, 2, 10, 11, 12]] = 0
    pruning = {"layer": 1, "budget": "fixed", "keep": 7}
    runs = [generated(model, inputs, "random_90", pruning | {"mask": mask}, SPANS[0]) for mask in (False, True)]
    plain = model.generate(**inputs, max_new_tokens=8, return_dict_in_generate=True, output_logits=True)
    for sequences, logits, report in runs:
        assert torch.equal(sequences, plain.sequences)
        assert torch.allclose(logits, torch.stack(plain.logits), atol=2e-5)
        assert (report.prompt_tokens, report.visual_tokens, report.groups, report.groups_kept) == (35, 21, 7, 7)
        assert report.visual_by_layer == [21] * 4
