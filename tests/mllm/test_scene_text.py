"""Rooms as text: what the lines say, and that each span holds the tokens of one line. A token here is a character."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.errors import UserError
from fastsam3d.mllm import VisualSpan
from fastsam3d.mllm.scenes.rooms import Room
from fastsam3d.mllm.smollm.scene_text import build_text_prompts, object_lines

BOXES = np.array([[1.26, -0.44, 0.4, 1, 1, 1], [-0.11, 2, 0.5, 1, 1, 1], [0, 0, 0, 1, 1, 1]], np.float32)
ROOM = Room(0, 6.0, 6.0, np.array([1, 0, 6]), np.array([4, 0, 7]), np.array([2, 0, 1]), BOXES, np.arange(3))
SHORT = ["table: blue", "chair: red", "bookcase: black"]
FULL = ["table: blue, large, at 1.3 -0.4", "chair: red, small, at -0.1 2.0", "bookcase: black, medium, at 0.0 0.0"]


class CharacterTokenizer:
    """One token for each character: its code point."""

    pad_token_id = 0

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [ord(character) for character in text]}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return f"[user]{messages[0]['content']}[model]"


def text_of(tokens):
    return "".join(map(chr, tokens))


def test_lines_say_class_colour_size_and_place():
    assert object_lines(ROOM) == SHORT
    assert object_lines(ROOM, full=True) == FULL


@pytest.mark.parametrize(("full", "lines"), [(False, SHORT), (True, FULL)])
def test_a_span_holds_the_tokens_of_one_line(full, lines):
    prompts = build_text_prompts(CharacterTokenizer(), [ROOM], ["what colour?"], ["table:"], full)
    ids = prompts.inputs["input_ids"][0].tolist()
    assert text_of(ids) == "[user]" + "".join(f"{line}\n" for line in lines) + "\nwhat colour?[model]table:"
    spans = prompts.visual[0]
    assert [text_of(ids[span.start : span.end]) for span in spans] == [f"{line}\n" for line in lines]
    assert all(span.groups == 1 for span in spans)
    assert torch.equal(prompts.objects[0]["boxes"], torch.from_numpy(BOXES))


def test_shorter_prompts_are_padded_on_the_left_and_spans_do_not_count_it():
    prompts = build_text_prompts(CharacterTokenizer(), [ROOM, ROOM], ["a longer question", "why"])
    assert prompts.inputs["attention_mask"].sum(1).tolist() == [70, 56]  # 6 + (12 + 11 + 16) + 1 + 17 or 3 + 7
    assert prompts.inputs["attention_mask"][1, :14].tolist() == [0] * 14
    assert prompts.inputs["input_ids"][1, 13:15].tolist() == [0, ord("[")]
    spans = [VisualSpan(6, 1, 12), VisualSpan(18, 1, 11), VisualSpan(29, 1, 16)]
    assert prompts.visual == [spans, spans]


def test_another_number_of_questions_or_beginnings_is_refused():
    for rooms, questions, begins in (([ROOM], ["a", "b"], None), ([ROOM], ["a"], ["x", "y"]), ([], [], None)):
        with pytest.raises(UserError, match="give one of each for each room"):
            build_text_prompts(CharacterTokenizer(), rooms, questions, begins)
