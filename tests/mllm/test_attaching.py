"""Pruning on a model: what it refuses, what it reports, and that nothing of it stays."""

from __future__ import annotations

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_language_models import SPANS, cached, prompts, tiny_model

import fastsam3d
from fastsam3d.acceleration.presets import load_preset, preset_info
from fastsam3d.acceleration.settings import AccelerationWarning
from fastsam3d.errors import UserError
from fastsam3d.mllm import Placeholder, VisualSpan

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install fastsam3d[mllm]")

HALF = {"pruning": {"enabled": True, "layer": 1, "share": 0.5}, "fastv": True}


def state(model):
    """Instance attributes of every module, in their order; hooks and submodules one by one."""
    return [{n: dict(v) if isinstance(v, dict) else id(v) for n, v in vars(m).items()} for m in model.modules()]


@pytest.fixture
def model():
    return tiny_model()


def test_presets_name_themselves():
    names = fastsam3d.presets("mllm")
    assert {"off", "fastv_35", "fastv_65", "fastv_90", "random_90", "oracle_90"} <= set(names)
    for name in names:
        assert load_preset(name, family="mllm").name == name
        assert preset_info(name, "mllm").description.endswith(".")


@pytest.mark.parametrize(
    ("name", "share"), [("fastv_35", 0.35), ("fastv_65", 0.65), ("fastv_90", 0.89), ("pyramid", 0.53)]
)
def test_published_presets_leave_out_what_their_name_says(name, share):
    deep, inputs = tiny_model(layers=32), prompts((320,))
    deep.config.max_position_embeddings = 512
    with fastsam3d.accelerate(deep, name) as acceleration, torch.no_grad():
        deep(**inputs, visual=VisualSpan(5, 100, 3))
    assert acceleration.report().pruned_share == pytest.approx(share, abs=0.005)


def test_nothing_stays_after_removal_or_an_exception(model):
    before, inputs = state(model), prompts()
    with fastsam3d.accelerate(model, HALF) as acceleration:
        assert state(model) != before
        model.generate(**inputs, visual=SPANS, max_new_tokens=2)
    assert state(model) == before and not acceleration.active
    with pytest.raises(UserError), fastsam3d.accelerate(model, HALF):
        model.generate(**inputs, visual=[], max_new_tokens=2)
    assert state(model) == before
    with pytest.raises(UserError):
        fastsam3d.accelerate(model, HALF, pruning={"layer": 4})
    assert state(model) == before


def test_an_exception_within_a_layer_leaves_the_next_call_right(model):
    inputs = prompts()

    def broken(module, args):
        raise RuntimeError("out of memory")

    with fastsam3d.accelerate(model, HALF):
        expected = model.generate(**inputs, visual=SPANS, max_new_tokens=4)
        handle = model.model.layers[2].register_forward_pre_hook(broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            model.generate(**inputs, visual=SPANS, max_new_tokens=4)
        handle.remove()
        assert torch.equal(model.generate(**inputs, visual=SPANS, max_new_tokens=4), expected)


def test_a_second_model_and_copies_are_untouched(model):
    inputs, other = prompts(), tiny_model()
    plain = other.generate(**inputs, max_new_tokens=4)
    with fastsam3d.accelerate(model, HALF) as acceleration, acceleration.visual(SPANS):
        assert not torch.equal(model.generate(**inputs, max_new_tokens=4), plain)
        for untouched in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(untouched.generate(**inputs, max_new_tokens=4), plain)


def test_spans_come_by_keyword_by_block_or_by_placeholder(model):
    inputs = prompts((40,))
    inputs["input_ids"][0, 4:28] = 96
    with fastsam3d.accelerate(model, HALF) as acceleration, torch.no_grad():
        by_keyword = model(**inputs, visual=VisualSpan(4, 8, 3)).logits
        by_id = model(**inputs, visual=Placeholder(96, 3)).logits
        with acceleration.visual([VisualSpan(4, 8, 3)]):
            by_block = model(**inputs).logits
        whole = model(**inputs).logits
        with pytest.raises(UserError, match="embeddings"):
            model(inputs_embeds=model.get_input_embeddings()(inputs["input_ids"]), visual=Placeholder(96, 3))
    assert torch.equal(by_keyword, by_id) and torch.equal(by_keyword, by_block)
    assert (by_keyword.shape[1], whole.shape[1]) == (28, 40)
    assert acceleration.report().samples_without_span == 1
    assert "without visual spans" in str(acceleration.report())


def test_a_call_in_another_thread_sees_the_block(model):
    inputs = prompts()
    with fastsam3d.accelerate(model, HALF) as acceleration:
        expected = model.generate(**inputs, visual=SPANS, max_new_tokens=3)
        with acceleration.visual(SPANS), ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(model.generate, **inputs, max_new_tokens=3) for _ in range(3)]
            assert all(torch.equal(run.result(timeout=60), expected) for run in runs)
        assert model(**inputs).logits.shape[1] == 40


def test_the_report_counts(model):
    with fastsam3d.accelerate(model, HALF) as acceleration:
        model.generate(**prompts(), visual=SPANS, num_beams=2, max_new_tokens=3)
        report = acceleration.report()
        assert (report.calls, report.samples, report.prompt_tokens, report.visual_tokens) == (1, 3, 110, 72)
        assert report.tokens_by_layer == [110, 74, 74, 74]
        assert report.visual_by_layer == [72, 36, 36, 36]
        assert (report.groups, report.groups_kept) == (24, 12)
        assert report.pruned_share == pytest.approx(0.375)
        token = 2 * 2 * 8 * 4  # keys and values, 2 heads of 8, 4 bytes
        assert report.cache_bytes_full == 2 * 4 * 110 * token
        assert report.cache_bytes_counted == 2 * (110 + 3 * 74) * token
        assert report.cache_bytes_held == 2 * 3 * (40 + 3 * 28) * token  # 3 prompts of 40 columns, 28 after the cut
        assert report.flops < report.flops_full and report.decode_steps == 2
        assert 0 < report.scoring_seconds < report.prefill_seconds
        assert report.to_dict()["pruned_share"] == report.pruned_share
        acceleration.reset_report()
        assert acceleration.report().samples == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache_implementation": "static"}, "one length for all layers"),
        ({"prefill_chunk_size": 8}, "in chunks"),
        ({"prompt_lookup_num_tokens": 2}, "assisted decoding"),
        ({"use_cache": False}, "for each token"),
        ({"guidance_scale": 2.0}, "second prompt"),
    ],
)
def test_ways_of_generating_that_need_whole_layers_are_refused(model, options, words):
    with fastsam3d.accelerate(model, HALF), pytest.raises(UserError, match=words):
        model.generate(**prompts(), visual=SPANS, max_new_tokens=2, **options)


def test_calls_that_cannot_work_are_refused(model):
    inputs = prompts((40,))
    ids, span = inputs["input_ids"], SPANS[0]
    with fastsam3d.accelerate(model, HALF), torch.no_grad():
        with pytest.raises(UserError, match="labels"):
            model(input_ids=ids, labels=ids, visual=span)
        with pytest.raises(UserError, match="padded on the right"):
            model(input_ids=ids, attention_mask=(torch.arange(40) < 30).long()[None], visual=span)
        static = transformers.StaticCache(config=model.config, max_cache_len=64)
        with pytest.raises(UserError, match="StaticCache"):
            model(input_ids=ids, visual=span, **cached(static, model))
        cache = transformers.DynamicCache(config=model.config)
        model(input_ids=ids, visual=span, **cached(cache, model))
        with pytest.raises(UserError, match="second turn"):
            model(input_ids=ids[:, :5], **cached(cache, model))
        with pytest.raises(UserError, match="batch of 1 and is used with 2"):
            model(input_ids=ids[:, :1].expand(2, 1), **cached(cache, model))
        kept = copy.deepcopy(cache)
        with pytest.raises(UserError, match="read the prompt again"):
            model(input_ids=ids[:, :1], **cached(kept, model))


@pytest.mark.parametrize("mask", [False, True])
def test_a_prompt_that_ends_with_visual_tokens_is_refused(model, mask):
    # The answer begins at the last token: if it left, another token would be taken for the end of the prompt.
    spans, pruning = [VisualSpan(4, 8, 3), VisualSpan(30, 1, 3)], HALF["pruning"] | {"mask": mask}
    with fastsam3d.accelerate(model, HALF | {"pruning": pruning}), torch.no_grad():
        with pytest.raises(UserError, match="the prompt of sample 1 ends with a visual token"):
            model.generate(**prompts((40, 33)), visual=spans, num_beams=2, max_new_tokens=2)
        model(**prompts((40, 34)), visual=spans)


def test_a_loss_is_computed_under_masks(model):
    ids = prompts((40,))["input_ids"]
    settings = HALF | {"pruning": HALF["pruning"] | {"mask": True}}
    with fastsam3d.accelerate(model, settings), torch.no_grad():
        assert model(input_ids=ids, labels=ids, visual=SPANS[0]).loss > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pruning": {"enabled": True}}, "nothing ranks"),
        ({"fastv": True}, "nothing says how many"),
        (HALF | {"random": True}, "both rank"),
        (HALF | {"pruning": {"enabled": True, "layer": 0}}, "before layer 0"),
        (HALF | {"pruning": {"enabled": True, "layer": 9}}, "layers 0 to 3"),
        ({"divprune": True, "pruning": {"enabled": True, "budget": "mass"}}, "only an order of the groups"),
    ],
)
def test_settings_that_cannot_work_are_refused(model, settings, words):
    with pytest.raises(UserError, match=words):
        fastsam3d.accelerate(model, settings)


def test_models_that_cannot_be_pruned_are_refused():
    strange = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=9))
    with pytest.raises(UserError, match="its type is 'gpt2'"):
        fastsam3d.accelerate(strange, "off")
    with pytest.raises(UserError, match="sliding window of 16"):
        fastsam3d.accelerate(tiny_model("mistral", sliding_window=16), "off")
    compiled = tiny_model()
    compiled.compile()
    with pytest.raises(UserError, match="compiled"):
        fastsam3d.accelerate(compiled, "off")


def test_training_with_checkpoints_is_refused(model):
    model.train()
    model.gradient_checkpointing_enable()
    with fastsam3d.accelerate(model, HALF), pytest.raises(UserError, match="second time"):
        model(**prompts(), visual=SPANS)


def test_prompts_without_visual_tokens_are_read_in_full(model):
    inputs = prompts()
    plain = model.generate(**inputs, max_new_tokens=3)
    with fastsam3d.accelerate(model, HALF) as acceleration:
        assert torch.equal(model.generate(**inputs, max_new_tokens=3, visual=[[], [], []]), plain)
        mixed = model.generate(**inputs, max_new_tokens=3, visual=[SPANS[0], [], SPANS[2]])
        assert torch.equal(mixed[1], plain[1])
    assert acceleration.report().samples_without_span == 0


def test_lora_through_peft(model):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    wrapped, results = peft.get_peft_model(model, settings).eval(), []
    for mask in (False, True):
        with fastsam3d.accelerate(wrapped, HALF, pruning={"mask": mask}):
            results.append(wrapped.generate(**prompts(), visual=SPANS, num_beams=2, max_new_tokens=6))
    assert torch.equal(*results)
    assert not torch.equal(results[0], wrapped.generate(**prompts(), num_beams=2, max_new_tokens=6))
    assert not any("forward" in vars(module) for module in wrapped.modules())


def test_external_scores_are_checked(model):
    settings = {"pruning": {"enabled": True, "layer": 0, "budget": "fixed", "keep": 2}, "external": True}
    with fastsam3d.accelerate(model, settings) as acceleration, torch.no_grad():
        with pytest.raises(UserError, match="external scores are missing"):
            model(**prompts((40,)), visual=SPANS[0])
        with pytest.raises(UserError, match="3 external scores and 8 groups"):
            model(**prompts((40,)), visual=SPANS[0], objects=[[1, 2, 3]])
        for strange, words in ((None, "a NoneType"), (["a"] * 8, "a list"), ([[1, 2], [3]], "a list")):
            with pytest.raises(UserError, match=f"sample 0 are no list of numbers but {words}"):
                model(**prompts((40,)), visual=SPANS[0], objects=[strange])
        scores = [1, float("nan"), 3, 4, 5, 6, 7, 8]
        with pytest.raises(UserError, match="not finite"):
            model(**prompts((40,)), visual=SPANS[0], objects=[scores])
        # The score of a padding object does not matter.
        masked = VisualSpan(4, 8, 3, [True, False, *[True] * 6])
        model(**prompts((40,)), visual=masked, objects=[scores])
        assert acceleration.kept()[0][0].kept.tolist() == [False] * 6 + [True] * 2


def test_external_shares_are_not_negative(model):
    # Logits that are taken for shares would be cut at 0, and all objects would stay.
    pruning, external = {"enabled": True, "budget": "mass", "alpha": 0.5}, {"enabled": True, "scale": "mass"}
    settings = {"pruning": pruning, "external": external}
    with fastsam3d.accelerate(model, settings), torch.no_grad(), pytest.raises(UserError, match="negative shares"):
        model(**prompts((40,)), visual=SPANS[0], objects=[[-1.0] * 8])


def test_the_handle_of_another_family_offers_no_visual(model):
    with fastsam3d.accelerate(model, "off") as acceleration:
        assert not hasattr(acceleration, "vizual")


def test_changes_in_the_middle_of_a_generation_are_refused(model):
    refused = []

    def change(ids, scores):
        for call in (acceleration.remove, lambda: fastsam3d.accelerate(model, "off")):
            with pytest.raises(UserError, match="in the middle of a run"):
                call()
            refused.append(call)
        return scores

    with fastsam3d.accelerate(model, HALF) as acceleration:
        expected = model.generate(**prompts(), visual=SPANS, max_new_tokens=2)
        found = model.generate(**prompts(), visual=SPANS, max_new_tokens=2, logits_processor=[change])
    assert torch.equal(found, expected)
    assert len(refused) == 4


def test_a_decoder_that_is_exchanged_afterwards_warns_once(model):
    fastsam3d.accelerate(model, "off")
    model.model = copy.deepcopy(model.model)
    with pytest.warns(AccelerationWarning, match="no prompt was seen in a generation"):
        model.generate(**prompts(), max_new_tokens=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccelerationWarning)
        model.generate(**prompts(), max_new_tokens=2)
