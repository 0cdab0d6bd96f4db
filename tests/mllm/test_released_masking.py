"""The masking that Fast3D released, against a loop over layers and steps that shares nothing with the library."""

from __future__ import annotations

import gc

import pytest
import torch
from tiny_language_models import SPANS, cached, prompts, tiny_model

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.mllm import VisualSpan

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'fastsam3d[mllm]'")

SPAN = VisualSpan(4, 8, 3, [True, True, False, True, True, True, True, False])
VISUAL = range(4, 28)
STEPS = 6


class Reference:
    """Decodes rows of the same prompt by hand: every layer's inputs are kept, and whole masks are written out.

    Args:
        model: with eager attention.
        cut: layer from which tokens are masked.
        choose: `(step, attention of row 0's last token to all columns, or None at layer 0) -> ` columns that stay.
    """

    def __init__(self, model, cut, choose):
        self._decoder, self._head, self._cut, self._choose = model.model, model.lm_head, cut, choose
        self._inputs = [None for _ in model.model.layers]
        self.chosen = []

    def read(self, ids):
        """Reads new tokens (rows, columns); returns the logits of the last."""
        hidden, lowest = self._decoder.embed_tokens(ids), torch.finfo(torch.float32).min
        step, new, attention = len(self.chosen), hidden.shape[1], None
        for index, layer in enumerate(self._decoder.layers):
            before = self._inputs[index]
            whole = hidden if before is None else torch.cat([before, hidden], 1)
            self._inputs[index], length = whole, whole.shape[1]
            tables = self._decoder.rotary_emb(whole, torch.arange(length)[None])
            mask = torch.full((length, length), lowest).triu(1)
            if index == self._cut:
                self.chosen.append(sorted(self._choose(step, attention)))
            if index >= self._cut:
                mask[:, [column for column in VISUAL if column not in self.chosen[-1]]] = lowest
            arguments = {"attention_mask": mask[None, None], "position_embeddings": tables}
            if index == self._cut - 1:
                weights = layer.self_attn(layer.input_layernorm(whole), **arguments)[1]
                attention = weights[0].mean(0)[-1]
            hidden = layer(whole, **arguments)[:, -new:]
        return self._head(self._decoder.norm(hidden))[:, -1]


def most_attended(count):
    def choose(step, attention):
        return (4 + attention[VISUAL.start : VISUAL.stop].topk(count).indices).tolist()

    return choose


def settings(layer, keep, **of_released):
    return {
        "pruning": {"enabled": True, "layer": layer, "budget": "fixed", "keep": keep},
        "released": {"enabled": True} | of_released,
    }


def generated(model, config, ids, objects=None, **options):
    """Tokens after the prompt (rows, steps), logits of every step (steps, rows, vocabulary), and the report."""
    with fastsam3d.accelerate(model, config) as acceleration, torch.random.fork_rng():
        torch.manual_seed(7)
        result = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            visual=SPAN,
            objects=objects,
            max_new_tokens=STEPS,
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )
        return result.sequences[:, ids.shape[1] :], torch.stack(result.logits), acceleration.report()


def followed(reference, ids, tokens):
    """Logits of the reference that reads the prompt and then these tokens."""
    logits = [reference.read(ids.expand(len(tokens), -1))]
    for step in range(tokens.shape[1] - 1):
        logits.append(reference.read(tokens[:, step : step + 1]))
    return torch.stack(logits)


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_newest_token_chooses_single_tokens_in_each_step(attention, layer):
    ids = prompts((40,))["input_ids"]
    tokens, logits, _ = generated(tiny_model(attention=attention), settings(layer, 4), ids, do_sample=False)
    reference = Reference(tiny_model(attention="eager"), layer, most_attended(4))
    assert torch.allclose(logits, followed(reference, ids, tokens), atol=1e-4)
    assert len(reference.chosen) == STEPS
    assert len({tuple(chosen) for chosen in reference.chosen}) > 1  # it changes from step to step
    objects = [{(column - 4) // 3 for column in chosen} for chosen in reference.chosen]
    assert any(len(of_step) > 4 // 3 + 1 for of_step in objects)  # objects are seen in part
    assert any(of_step & {2, 7} for of_step in objects)  # also those that only fill up


@torch.no_grad()
def test_the_first_row_of_a_sample_chooses_for_all():
    ids = prompts((40,))["input_ids"]
    options = {"do_sample": True, "num_return_sequences": 3}
    tokens, logits, _ = generated(tiny_model(), settings(2, 4), ids, **options)
    assert len({tuple(row) for row in tokens.tolist()}) == 3
    reference = Reference(tiny_model(attention="eager"), 2, most_attended(4))
    assert torch.allclose(logits, followed(reference, ids, tokens), atol=1e-4)
    alone = Reference(tiny_model(attention="eager"), 2, most_attended(4))
    assert not torch.allclose(logits[:, 2:], followed(alone, ids, tokens[2:]), atol=1e-2)


@torch.no_grad()
def test_at_layer_0_tokens_are_drawn_again_in_each_step():
    ids = prompts((40,))["input_ids"]
    tokens, logits, _ = generated(tiny_model(), settings(0, 5, seed=3), ids, do_sample=False)

    def choose(step, attention):
        draws = torch.rand(24, generator=torch.Generator().manual_seed(3 + 1_000_003 * step))
        return (4 + draws.topk(5).indices).tolist()

    reference = Reference(tiny_model(attention="eager"), 0, choose)
    assert torch.allclose(logits, followed(reference, ids, tokens), atol=1e-4)
    assert len({tuple(chosen) for chosen in reference.chosen}) == STEPS


@torch.no_grad()
def test_given_scores_mask_the_same_tokens_in_all_steps():
    ids, scores = prompts((40,))["input_ids"], [0.1, 0.9, 0.2, 0.8, 0.3, 0.4, 0.5, 0.6]
    config = settings(0, 4, scores="external")
    tokens, logits, _ = generated(tiny_model(), config, ids, objects=[scores], do_sample=False)
    # All three tokens of object 1, and the first of object 3: ties go by position.
    reference = Reference(tiny_model(attention="eager"), 0, lambda step, attention: [7, 8, 9, 13])
    assert torch.allclose(logits, followed(reference, ids, tokens), atol=1e-4)


def test_nothing_is_saved_and_the_report_says_so():
    deep, inputs = tiny_model(layers=32), prompts((320,))
    deep.config.max_position_embeddings = 512
    with fastsam3d.accelerate(deep, "released") as acceleration:
        deep.generate(**inputs, visual=VisualSpan(5, 100, 3), max_new_tokens=3, num_beams=2)
        report = acceleration.report()
    assert report.flops == report.flops_full and report.cache_bytes_counted == report.cache_bytes_full
    assert report.tokens_by_layer == [320] * 32 and report.pruned_share == 0
    assert report.masked_by_layer == [0, 0] + [285] * 30
    assert report.masked_share == report.to_dict()["masked_share"] == pytest.approx(0.95 * 30 / 32)
    assert (report.remasked_steps, report.decode_steps) == (2, 2)
    assert "so that nothing is saved: 89.1 %, averaged over the layers; chosen anew in 2 steps" in str(report)


def test_samples_of_a_batch_are_treated_as_if_they_were_alone():
    model, inputs = tiny_model(), prompts()
    spans = [*SPANS[:2], [VisualSpan(2, 4, 3), VisualSpan(15, 2, 3)]]
    config = {"pruning": {"enabled": True, "layer": 1, "share": 0.2}, "released": True}
    with fastsam3d.accelerate(model, config):
        together = model.generate(**inputs, visual=spans, max_new_tokens=STEPS, num_beams=2)
        for row, length in enumerate((40, 33, 37)):
            ids = inputs["input_ids"][row : row + 1, -length:]
            mask = torch.ones_like(ids)
            alone = model.generate(
                input_ids=ids, attention_mask=mask, visual=[spans[row]], max_new_tokens=STEPS, num_beams=2
            )
            assert torch.equal(alone[0, length:], together[row, 40:])


@torch.no_grad()
def test_without_a_cache_and_after_removal():
    model, inputs = tiny_model(), prompts()
    plain = model(**inputs).logits
    with fastsam3d.accelerate(model, settings(1, 4)) as acceleration:
        with_cache = model(**inputs, visual=SPANS)
        without = model(**inputs, visual=SPANS, use_cache=False).logits
        assert torch.allclose(with_cache.logits, without, atol=1e-5) and not torch.allclose(without, plain, atol=0.1)
        remembered = acceleration._attached._remembered
        assert len(remembered) == 1
        cache = getattr(with_cache, "cache", None) or with_cache.past_key_values
        with pytest.raises(UserError, match="batch of 3 and is used with 1"):
            model(input_ids=torch.tensor([[5]]), **cached(cache, model))
        del with_cache, cache
        gc.collect()
        assert len(remembered) == 0  # what is remembered does not hold its cache
    assert torch.equal(model(**inputs).logits, plain)
