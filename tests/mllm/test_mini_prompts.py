"""Words to numbers and back, prompts and their spans, and that padding changes nothing."""

from __future__ import annotations

import pytest
import torch
from tiny_scene_model import WIDTH, tiny_scene_model

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.mini.model import unit
from fastsam3d.mllm.mini.prompts import answer, build_prompts, observe
from fastsam3d.mllm.scenes.rooms import IDENTIFIERS, make_room
from fastsam3d.mllm.scenes.vocabulary import CLASSES

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install fastsam3d[mllm]")

QUESTIONS = [
    "find all red chairs",
    "describe <OBJ007>",
    "i stand at the red bin and face north what colour is the bed on my left",
]


@pytest.fixture(scope="module")
def model():
    return tiny_scene_model()


@pytest.fixture(scope="module")
def rooms():
    return [observe(make_room(seed, objects)) for seed, objects in ((0, 20), (1, 7), (2, 12))]


def test_words_become_numbers_and_back():
    assert len(set(tokens.words())) == len(tokens.words())
    assert tokens.words()[-IDENTIFIERS:] == tuple(f"<OBJ{number:03d}>" for number in range(IDENTIFIERS))
    assert tokens.first_identifier() == len(tokens.words()) - IDENTIFIERS
    for text in ("yes <OBJ003> and <OBJ127>", "a large red sofa at the front left", "two", "behind"):
        assert tokens.decode(tokens.encode(text)) == text
    assert tokens.decode([*tokens.encode("yes"), tokens.END, *tokens.encode("no")]) == "yes"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("How many RED chairs are there?", "how many red chair are there"),
        ("What's the color of the sofa", "what is the colour of the sofa"),
        ("describe<obj012>", "describe <OBJ012>"),
        ("find all benches, please.", None),
    ],
)
def test_case_punctuation_and_plurals_do_not_matter(said, meant):
    if meant is None:
        with pytest.raises(UserError, match="does not know the word 'please'"):
            tokens.encode(said)
    else:
        assert tokens.decode(tokens.encode(said)) == meant


def test_unknown_words_are_answered_with_known_ones():
    with pytest.raises(UserError, match=r"'chairr'\. Did you mean chair"):
        tokens.encode("the chairr")
    with pytest.raises(UserError, match=r"'xyzzy'\. Known: .*chair"):
        tokens.encode("xyzzy")
    for special in ("<pad>", "user:", "<s>", "<OBJ128>"):
        with pytest.raises(UserError, match="does not know"):
            tokens.encode(special)
    assert all(tokens.number_of(kind.plural) == tokens.number_of(kind.name) for kind in CLASSES)


def test_prompts_have_their_words_and_their_objects_where_the_spans_say(model, rooms):
    prompts = build_prompts(model, rooms, QUESTIONS)
    # <s> scene: three tokens an object, user: the words assistant:
    lengths = [2 + 3 * objects + 1 + words + 1 for objects, words in ((20, 4), (7, 2), (12, 17))]
    embeds, mask = prompts.inputs["inputs_embeds"], prompts.inputs["attention_mask"]
    assert embeds.shape == (3, max(lengths), WIDTH) and mask.sum(1).tolist() == lengths
    assert [(span.start, span.groups, span.group_size) for span in prompts.visual] == [
        (2, 20, 3),
        (2, 7, 3),
        (2, 12, 3),
    ]
    for row, (room, length) in enumerate(zip(rooms, lengths, strict=True)):
        padding = max(lengths) - length
        assert not embeds[row, :padding].any() and not mask[row, :padding].any()
        start = padding + prompts.visual[row].start
        calls = embeds[row, start : start + 3 * len(room.identifiers) : 3]
        assert calls.equal(model.embed(room.identifiers + tokens.first_identifier()))
        assert embeds[row, -1].equal(model.embed(torch.tensor(tokens.ASSISTANT)))
        assert prompts.objects[row]["boxes"].shape == (len(room.identifiers), 6)


def test_features_of_an_object_carry_half_of_its_identifier(model, rooms):
    room = rooms[1]
    made = model.object_tokens(room.identifiers, room.features.geometry, room.features.appearance)
    called, shape, pictures = made.unflatten(0, (7, 3)).unbind(1)
    for token, projector, feature in (
        (shape, model.geometry_projector, room.features.geometry),
        (pictures, model.appearance_projector, room.features.appearance),
    ):
        assert torch.allclose(token - projector(feature), 0.5 * unit(called), atol=1e-5)
        assert torch.allclose(projector(feature).pow(2).mean(-1), torch.ones(7), atol=1e-3)


def test_padding_on_the_left_changes_no_answer(model, rooms):
    together = answer(model, rooms, QUESTIONS)
    alone = [answer(model, [room], [question])[0] for room, question in zip(rooms, QUESTIONS, strict=True)]
    assert together == alone and len(set(alone)) == 3
    prompts = build_prompts(model, rooms, QUESTIONS)
    with torch.no_grad():
        batch = model.language_model(**prompts.inputs).logits[:, -1]
        for row, (room, question) in enumerate(zip(rooms, QUESTIONS, strict=True)):
            single = model.language_model(**build_prompts(model, [room], [question]).inputs).logits[0, -1]
            assert torch.allclose(batch[row], single, atol=1e-4 * float(single.abs().max()))


def test_padding_changes_no_pruned_answer(model, rooms):
    with fastsam3d.accelerate(model, "fastv_65") as acceleration:
        together = answer(model, rooms, QUESTIONS)
        kept = [records[0].kept for records in acceleration.kept()]
        for row, (room, question) in enumerate(zip(rooms, QUESTIONS, strict=True)):
            assert answer(model, [room], [question]) == [together[row]]
            assert acceleration.kept()[0][0].kept.equal(kept[row])
    assert [int(row.sum()) for row in kept] == [4, 1, 2]  # a fifth of 20, 7 and 12, to the nearest


def test_rooms_and_questions_come_in_pairs(model, rooms):
    with pytest.raises(UserError, match="2 questions about 1 rooms"):
        build_prompts(model, rooms[:1], QUESTIONS[:2])
    with pytest.raises(UserError, match="0 questions"):
        build_prompts(model, [], [])
