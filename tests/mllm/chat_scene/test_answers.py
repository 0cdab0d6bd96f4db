"""Chat-Scene on a small folder, against a model that is put together in another way: LoRA apart, tokens by hand."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from chat_scene_files import SCENE
from tiny_chat_scene import HIDDEN, OBJECTS, RANK, WRAPPED
from torch.nn import functional

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.mllm import load_mllm
from fastsam3d.mllm.chat_scene import Scene, object_order
from fastsam3d.mllm.chat_scene.prompts import HEAD

QUESTION = "What color is the chair <OBJ001>?"
KEEPS = {"layer": 1, "budget": "fixed"}
PLAIN = {"num_beams": 1, "repetition_penalty": 1.0, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def reference(files):
    """Vicuna with LoRA beside its matrices, and longer embeddings."""
    language_model = transformers.LlamaForCausalLM.from_pretrained(files.vicuna).eval()
    state = files.state
    for name, module in list(language_model.named_modules()):
        if f"{WRAPPED}{name}.lora_A.default.weight" in state:
            first, second = (state[f"{WRAPPED}{name}.lora_{which}.default.weight"] for which in "AB")
            module.register_forward_hook(
                lambda _, inputs, output, a=first, b=second: output + inputs[0] @ a.T @ b.T * (16 / RANK)
            )
    language_model.model.embed_tokens.weight = torch.nn.Parameter(state[f"{WRAPPED}model.embed_tokens.weight"])
    language_model.lm_head.weight = torch.nn.Parameter(state[f"{WRAPPED}lm_head.weight"])
    return language_model.requires_grad_(False)


def pieces(files, texts):
    """Token ids of texts in which every blank is written as a low bar, merged by the tokeniser's own model."""
    model = transformers.AutoTokenizer.from_pretrained(files.vicuna).backend_tokenizer.model
    return [piece.id for text in texts for piece in model.tokenize(text)]


def reference_prompt(files, scene, question, order=tuple(range(OBJECTS))):
    """Embeddings of a whole prompt, (S, D); `question` has its blanks as low bars and comes in parts around names."""
    state = files.state
    table = state[f"{WRAPPED}model.embed_tokens.weight"]
    first = len(table) - OBJECTS

    def projected(vector, name):
        hidden = functional.gelu(vector @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"])
        return hidden @ state[f"{name}.2.weight"].T + state[f"{name}.2.bias"]

    def unit(features, row):
        vector = features[row] if row < len(features) else torch.zeros(features.shape[1])
        return vector / vector.norm() if vector.norm() > 0 else vector

    rows = [table[1], *table[pieces(files, ["▁" + HEAD.replace(" ", "▁")])]]
    for slot in range(OBJECTS):
        rows.append(table[first + slot])
        rows.append(projected(unit(scene.features_3d, order[slot]), "object_proj"))
        rows.append(projected(unit(scene.features_2d, order[slot]), "object_img_proj"))
    rows += list(table[pieces(files, ["▁].▁USER:▁"])])
    for part in question:
        rows += list(table[pieces(files, [part])]) if isinstance(part, str) else [table[first + part]]
    return torch.stack(rows)


ASKED = ("▁▁What▁color▁is▁the▁chair▁", 1, "?▁ASSISTANT:▁")


def test_the_prompt_is_that_of_the_published_evaluation(files, model, features):
    scene = features.scene(SCENE)
    inputs = model.inputs([scene], [QUESTION])
    expected = reference_prompt(files, scene, ASKED)
    torch.testing.assert_close(inputs.inputs_embeds[0], expected, rtol=1e-5, atol=1e-5)
    (span,) = inputs.visual
    assert span.start == 1 + len(pieces(files, ["▁" + HEAD.replace(" ", "▁")]))
    assert (span.groups, span.group_size, span.mask) == (OBJECTS, 3, (True,) * 3 + (False,) * 3)
    assert inputs.tail_tokens == len(pieces(files, ["▁].▁USER:▁"]))


def test_merged_weights_give_the_logits_of_lora_apart(files, model, reference, features):
    embeds = reference_prompt(files, features.scene(SCENE), ASKED)[None]
    given = model.inputs([features.scene(SCENE)], [QUESTION])
    own = model(inputs_embeds=given.inputs_embeds, attention_mask=given.attention_mask).logits
    torch.testing.assert_close(own, reference(inputs_embeds=embeds).logits, rtol=1e-4, atol=1e-4)


def test_answers_are_those_of_a_loop_over_the_reference(files, model, reference, features):
    embeds = reference_prompt(files, features.scene(SCENE), ASKED)[None]
    table = files.state[f"{WRAPPED}model.embed_tokens.weight"]
    ids: list[int] = []
    for step in range(8):
        logits = reference(inputs_embeds=torch.cat([embeds, table[ids][None]], 1)).logits[0, -1]
        if step == 0:
            logits[2] = float("-inf")  # at least one token
        ids.append(int(logits.argmax()))
    tokenizer = transformers.AutoTokenizer.from_pretrained(files.vicuna)
    tokenizer.add_tokens([f"<OBJ{n:03d}>" for n in range(OBJECTS)], special_tokens=True)
    ids = ids[: ids.index(2)] if 2 in ids else ids
    expected = tokenizer.decode(ids).replace("  ", " ").replace(" .", ".").strip()
    assert model.answer(features.scene(SCENE), QUESTION, **PLAIN) == expected


def test_generation_is_that_of_the_paper(model, features, monkeypatch):
    seen = {}
    monkeypatch.setattr(model.language_model, "generate", lambda **given: seen.update(given) or torch.tensor([[2]]))
    assert model.answer(features.scene(SCENE), QUESTION) == ""
    assert (seen["num_beams"], seen["max_new_tokens"], seen["min_new_tokens"], seen["do_sample"]) == (5, 64, 1, False)
    (penalty,) = seen["logits_processor"]
    changed = penalty(torch.tensor([[1, 1], [0, 2]]), torch.tensor([[1.0, 6.0, 2.0], [-1.0, 1.0, 3.0]]))
    assert changed.tolist() == [[1, 2, 2], [-3, 1, 1]]
    assert penalty(torch.zeros(1, 0, dtype=torch.long), torch.ones(1, 2)).tolist() == [[1, 1]]


def test_a_batch_answers_as_its_questions_alone(model, features, segmented):
    scenes = [features.scene(SCENE), features.scene("scene0002_00", segmented["scene0002_00"])]
    prompts = [QUESTION, "Which objects are chairs?"]
    for generation in (PLAIN, {"max_new_tokens": 6}):
        alone = [model.answer(*one, **generation) for one in zip(scenes, prompts, strict=True)]
        assert model.answer_all(scenes, prompts, **generation) == alone


def test_an_order_moves_objects_and_names(files, model, features):
    order = object_order(OBJECTS, seed=7)
    assert sorted(order) == list(range(OBJECTS)) != order
    assert order == object_order(OBJECTS, seed=7) != object_order(OBJECTS, seed=7, number=1)
    scene = features.scene(SCENE)
    inputs = model.inputs([scene], [QUESTION], orders=[order])
    asked = (ASKED[0], order.index(1), ASKED[2])
    torch.testing.assert_close(
        inputs.inputs_embeds[0], reference_prompt(files, scene, asked, order), rtol=1e-5, atol=1e-5
    )
    assert inputs.visual[0].mask == tuple(number < 3 for number in order)


def test_names_in_answers_are_those_of_the_objects(model, features, monkeypatch):
    order = [2, 0, 1, 3, 4, 5]
    ids = [model.tokenizer.first + slot for slot in (0, 2)]
    monkeypatch.setattr(model.language_model, "generate", lambda **_: torch.tensor([[*ids, 2, 0]]))
    (text,) = model.answer_all([features.scene(SCENE)], [QUESTION], orders=[order])
    assert text.split(" ") == ["<OBJ002>", "<OBJ001>"] or text == "<OBJ002><OBJ001>"


def test_missing_objects_can_be_left_out(files, features):
    model = load_mllm("chat_scene", vicuna=files.vicuna, checkpoint=files.checkpoint, missing_objects="leave_out")
    scene = features.scene(SCENE)
    inputs = model.inputs([scene], [QUESTION])
    assert (inputs.visual[0].groups, inputs.visual[0].mask) == (3, (True,) * 3)
    whole, start = reference_prompt(files, scene, ASKED), inputs.visual[0].start
    expected = torch.cat([whole[: start + 9], whole[start + 3 * OBJECTS :]])
    torch.testing.assert_close(inputs.inputs_embeds[0], expected, rtol=1e-5, atol=1e-5)


def test_answers_follow_a_prompt_for_attention_maps(files, model, features):
    inputs = model.inputs([features.scene(SCENE)], ["Is it?"], answers=["Yes."])
    expected = reference_prompt(files, features.scene(SCENE), ("▁▁Is▁it?▁ASSISTANT:▁Yes.",))
    torch.testing.assert_close(inputs.inputs_embeds[0], expected, rtol=1e-5, atol=1e-5)


def test_accelerated_answers(model, features):
    model = copy.deepcopy(model)
    scene = features.scene(SCENE)
    full = Scene("full", torch.randn(OBJECTS, 5), torch.randn(OBJECTS, 7), torch.ones(OBJECTS, dtype=torch.bool))
    plain = model.answer(full, QUESTION, **PLAIN)
    with fastsam3d.accelerate(model, "fastv_90", pruning=KEEPS | {"keep": OBJECTS}) as acceleration:
        assert model.answer(full, QUESTION, **PLAIN) == plain
        model.answer(scene, QUESTION, **PLAIN)
        report = acceleration.report()
        # Of the second scene three objects only fill up: they have tokens, and are no groups.
        assert (report.groups, report.groups_kept, report.visual_tokens) == (OBJECTS + 3, OBJECTS + 3, 2 * 3 * OBJECTS)
    answers = {}
    for mask in (False, True):
        with fastsam3d.accelerate(model, "fastv_90", pruning=KEEPS | {"keep": 1, "mask": mask}) as acceleration:
            answers[mask] = model.answer_all([scene, full], [QUESTION, "Why?"], max_new_tokens=6)
            assert acceleration.report().groups_kept == 2
    assert answers[False] == answers[True]
    assert model.answer(full, QUESTION, **PLAIN) == plain
    assert "generate" not in vars(model.language_model)


def test_scores_from_outside_reach_their_scorer(model, features):
    model = copy.deepcopy(model)
    settings = {"external": {"enabled": True}, "fastv": {"enabled": False}, "pruning": KEEPS | {"layer": 0, "keep": 1}}
    with fastsam3d.accelerate(model, "fastv_90", **settings):
        with pytest.raises(UserError, match="external scores are missing"):
            model.answer(features.scene(SCENE), QUESTION, **PLAIN)
        scores = [0.0, 3.0, 1.0, 9.0, 9.0, 9.0]  # padding objects never stay
        (chosen,) = model.answer_all([features.scene(SCENE)], [QUESTION], objects=[scores], **PLAIN)
        (other,) = model.answer_all([features.scene(SCENE)], [QUESTION], objects=[[3.0, 0, 0, 0, 0, 0]], **PLAIN)
    assert isinstance(chosen, str) and isinstance(other, str)


def test_what_does_not_fit_the_model_is_named(model, features):
    scene = features.scene(SCENE)
    for call, words in [
        (lambda: model.answer(scene, "Where is <OBJ006>?"), "names <OBJ006>, and objects have numbers below 6"),
        (lambda: model.answer_all([scene], ["a", "b"]), "1 scenes, 2 prompts"),
        (lambda: model.answer_all([scene], ["a"], orders=[[0, 0, 1, 2, 3, 4]]), "each number from 0 to 5 once"),
        (lambda: model.answer_all([scene], ["a"], orders=[]), "0 orders of objects for 1 questions"),
    ]:
        with pytest.raises(UserError, match=words):
            call()
    wide = Scene(scene.name, torch.zeros(9, 5), torch.zeros(9, 7), torch.ones(9, dtype=torch.bool))
    with pytest.raises(UserError, match=r"9 objects, and the model has names for 6: .* scene.take\(6\)"):
        model.answer(wide, "a")
    assert len(model.inputs([wide.take(6)], ["a"]).visual) == 1
    swapped = Scene(scene.name, scene.features_2d, scene.features_3d, scene.present)
    with pytest.raises(UserError, match="features of 7 numbers, and the checkpoint takes 5"):
        model.answer(swapped, "a")
    assert model.config.hidden_size == HIDDEN
