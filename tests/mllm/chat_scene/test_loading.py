"""Files of Chat-Scene: everything that does not fit is named."""

from __future__ import annotations

import shutil

import pytest
import torch
from tiny_chat_scene import OBJECTS, WRAPPED, save_checkpoint, small_tokenizer

from fastsam3d.errors import UserError
from fastsam3d.mllm import load_mllm
from fastsam3d.mllm.chat_scene.checkpoint import grouped
from fastsam3d.mllm.chat_scene.tokens import ObjectTokenizer


def load(files, **changes):
    return load_mllm("chat_scene", **({"vicuna": files.vicuna, "checkpoint": files.checkpoint} | changes))


def saved(files, tmp_path, change):
    state = dict(files.state)
    change(state)
    return save_checkpoint(tmp_path / "ckpt.pth", state)


def test_a_plain_llama_comes_out(files, model):
    assert type(model.language_model).__name__ == "LlamaForCausalLM"
    assert model.config.vocab_size == len(files.state[f"{WRAPPED}lm_head.weight"])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    # Both penalties and lengths of an answer are its own, and not those of Vicuna's folder.
    assert model.language_model.generation_config.max_length != 9
    name = "model.layers.1.mlp.down_proj"
    first, second = (files.state[f"{WRAPPED}{name}.lora_{which}.default.weight"] for which in "AB")
    changed = model.language_model.get_submodule(name).weight
    before = load_vicuna(files).get_submodule(name).weight
    torch.testing.assert_close(changed, before + 16 / 3 * second @ first)


def load_vicuna(files):
    import transformers

    return transformers.LlamaForCausalLM.from_pretrained(files.vicuna)


def test_loading_in_half_precision(files, features):
    model = load(files, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.language_model.parameters()} == {torch.bfloat16}
    assert isinstance(model.answer(features.scene("scene0001_00"), "What?", max_new_tokens=3), str)


def test_missing_keys_are_all_named(files, tmp_path):
    def change(state):
        for layer in (0, 1, 2):
            del state[f"{WRAPPED}model.layers.{layer}.self_attn.q_proj.lora_A.default.weight"]
        del state["object_proj.2.bias"]

    with pytest.raises(UserError) as caught:
        load(files, checkpoint=saved(files, tmp_path, change))
    text = str(caught.value)
    assert "4 missing:" in text and "object_proj.2.bias" in text
    assert "model.layers.*.self_attn.q_proj.lora_A.default.weight (* = 0-2)" in text
    assert "unexpected" not in text and "wrong shape" not in text


def test_unexpected_and_misshapen_keys_are_all_named(files, tmp_path):
    def change(state):
        state["scene_proj.0.weight"] = torch.zeros(2)
        state[f"{WRAPPED}model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)  # not used: no complaint
        state["object_img_proj.0.bias"] = torch.zeros(3)
        state[f"{WRAPPED}lm_head.weight"] = state[f"{WRAPPED}lm_head.weight"][:-1]
        state[f"{WRAPPED}model.layers.2.mlp.up_proj.lora_B.default.weight"] = torch.zeros(48, 2)

    with pytest.raises(UserError) as caught:
        load(files, checkpoint=saved(files, tmp_path, change))
    text = str(caught.value)
    rows = len(files.state[f"{WRAPPED}lm_head.weight"])
    assert "1 unexpected: scene_proj.0.weight" in text
    assert "object_img_proj.0.bias 3, not 32" in text
    assert f"lm_head.weight {rows - 1}x32, not {rows}x32" in text
    assert "mlp.up_proj.lora_B.default.weight 48x2, not 48x3" in text and "(* = 2)" in text
    assert "missing" not in text and "inv_freq" not in text


def test_sizes_that_a_file_only_claims_are_refused(files, tmp_path):
    def change(state):
        state[f"{WRAPPED}model.embed_tokens.weight"] = torch.zeros(1, 1).expand(10**9, 32)
        state["object_proj.0.weight"] = torch.zeros(1, 1).expand(32, 10**9)

    with pytest.raises(UserError, match="1000000000x32, not"):
        load(files, checkpoint=saved(files, tmp_path, change))


def test_another_vocabulary_is_refused(files, tmp_path):
    def change(state):
        for name in ("model.embed_tokens", "lm_head"):
            key = f"{WRAPPED}{name}.weight"
            state[key] = state[key][:-OBJECTS]

    with pytest.raises(UserError, match="1 to 1000 more, for the names of objects"):
        load(files, checkpoint=saved(files, tmp_path, change))


def test_settings_of_a_strange_class_are_named_or_allowed(files, tmp_path):
    path = save_checkpoint(tmp_path / "ckpt.pth", files.state, "own.settings")
    with pytest.raises(UserError, match=r"the class own\.settings\.EasyDict"):
        load(files, checkpoint=path)
    assert load(files, checkpoint=path, settings_classes=("own.settings.EasyDict",)).objects == OBJECTS


def test_damaged_and_absent_files_are_named(files, tmp_path):
    cut = tmp_path / "cut.pth"
    cut.write_bytes(files.checkpoint.read_bytes()[:5000])
    empty = tmp_path / "empty.pth"
    torch.save({"epoch": 1}, empty)
    half = tmp_path / "half"
    shutil.copytree(files.vicuna, half)
    (half / "tokenizer.json").unlink()
    broken = tmp_path / "broken"
    shutil.copytree(files.vicuna, broken)
    (broken / "model.safetensors").write_bytes(b"0" * 100)
    for changes, words in [
        ({"checkpoint": cut}, "cut.pth cannot be read"),
        ({"checkpoint": empty}, "no entry `model`"),
        ({"checkpoint": tmp_path / "none.pth"}, "does not exist"),
        ({"vicuna": tmp_path}, "no config.json"),
        ({"vicuna": half}, "the tokeniser in .*half"),
        ({"vicuna": broken}, "the language model in .*broken cannot be read"),
        ({"missing_objects": "drop"}, "missing_objects is 'drop'"),
        ({"attention": "magic"}, "cannot be read"),
        ({"device": "toaster", "vicuna": tmp_path}, "'toaster' is not a device"),
    ]:
        with pytest.raises(UserError, match=words):
            load(files, **changes)
    with pytest.raises(UserError, match="no kind of 3D language model called 'chat'"):
        load_mllm("chat")


def test_a_language_model_without_a_layer_is_refused(files, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "vicuna"
    shutil.copytree(files.vicuna, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"mlp\.up_proj\.weight \(\* = 1\)"):
        load(files, vicuna=folder)


def test_loading_moves_no_random_numbers(files):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(files)
    assert torch.equal(torch.rand(2), expected)


def test_names_in_a_list_are_short():
    names = [f"a.layers.{number}.b" for number in (0, 1, 2, 5, 7, 8)]
    assert grouped([*names, "c"]) == "a.layers.*.b (* = 0-2, 5, 7-8), c"
    assert grouped([f"n{number}" for number in range(50)]).endswith("n39 and 10 more")


def test_pieces_have_one_blank_in_front_and_none_behind_names():
    tokenizer = small_tokenizer()
    words = tokenizer.get_vocab()
    own = ObjectTokenizer(tokenizer, 3)
    assert own.ids("the chair") == [words["▁the"], words["▁chair"]]
    assert own.ids(" the chair ") == [words["▁▁"], words["the"], words["▁chair"], words["▁"]]
    assert own.ids("<OBJ001> the<OBJ002>.") == [
        *(words["▁"], own.first + 1, words["▁the"], own.first + 2, words["."]),
    ]
    assert own.first + 3 not in own.ids("<OBJ003>") and len(own.ids("<OBJ003>")) > 3
    assert own.ids("é") == [words["▁"], words["<0xC3>"], words["<0xA9>"]]
    with pytest.raises(UserError, match="already has names of objects"):
        ObjectTokenizer(tokenizer, 3)


def test_answers_are_cut_and_tidied():
    own = ObjectTokenizer(small_tokenizer(), 3)
    ids = own.ids("the chair .")
    assert own.text([*ids, own.end, 0, 0, *ids]) == "the chair."
    assert own.text([0, own.begin, *ids]) == "the chair."
    assert own.text([]) == ""
