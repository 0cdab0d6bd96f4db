"""Attention maps of questions: how much some rows of a prompt attend to each object.

Fast3D (ACM MM 2025) averages over the text of a question and its answer. Here the caller chooses the rows, and the
choice is stored with the maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError
from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.benchmarks.annotations import Annotation
from fastsam3d.mllm.chat_scene.features import Scene
from fastsam3d.mllm.chat_scene.model import ChatInputs, ChatScene
from fastsam3d.mllm.chat_scene.prompts import question_text
from fastsam3d.mllm.maps import extract_maps

ROWS = TEXT, LAST, QUESTION, ANSWER = ("text", "last", "question", "answer")
"""Rows of a prompt. text: from the question to the end of the answer. last: the last token before the answer. question:
the words of the question. answer: the words of the answer, or the last token where there is no answer."""


def maps_of_questions(
    model: ChatScene, scenes: Sequence[Scene], prompts: Sequence[str], answers: Sequence[str], rows: str
) -> tuple[Tensor, Tensor]:
    """Computes attention maps of questions, averaged over layers and heads. Objects are in their own order.

    Args:
        model: a model that is not accelerated.
        scenes, prompts, answers: one of each for every question. Only the rows "text" and "answer" read the answers.
        rows: one of `ROWS`.

    Returns:
        The maps (B, N) float32, and which objects are present and no padding objects (B, N) bool. Both are on the CPU.

    Raises:
        UserError: there are no such rows, or a scene or a question does not fit the model.
    """
    if rows not in ROWS:
        raise UserError(f"there are no rows {rows!r}. {suggestion(str(rows), ROWS)}")
    read = answers if rows in (TEXT, ANSWER) else [""] * len(prompts)
    inputs = model.inputs(scenes, prompts, answers=read)
    (maps,) = extract_maps(
        model,
        inputs.visual,
        [_row_set(model, inputs, prompts, read, rows)],
        inputs_embeds=inputs.inputs_embeds,
        attention_mask=inputs.attention_mask,
    )
    return maps.cpu(), present_of(inputs)


def present_of(inputs: ChatInputs) -> Tensor:
    """Which objects of the prompts are present and no padding objects, (B, N) bool."""
    marks = [torch.tensor(span.mask, dtype=torch.bool) for span in inputs.visual]
    return torch.nn.utils.rnn.pad_sequence(marks, batch_first=True)


def answer_text(annotation: Annotation, benchmark: str) -> str:
    """Returns the answer that is read after a question: the one to train on, or else the first reference.

    Args:
        annotation: the question.
        benchmark: name of its benchmark. For Multi3DRefer the references are numbers of objects, so the result is "".
    """
    if annotation.caption is not None:
        return annotation.caption
    if benchmark == "multi3drefer" or not annotation.references:
        return ""
    text = str(annotation.references[0])
    if benchmark not in ("scanqa", "sqa3d"):
        return text
    # As their answers for training are written.
    return text.capitalize() + ("" if text.endswith(".") else ".")


def _row_set(model: ChatScene, inputs: ChatInputs, prompts: Sequence[str], answers: Sequence[str], rows: str) -> RowSet:
    if rows == LAST:
        return RowSet("last")
    if rows == TEXT:
        return RowSet("text", skip_first=inputs.tail_tokens)
    behind = []
    for prompt, answer in zip(prompts, answers, strict=True):
        whole = model.tokenizer.ids(question_text(prompt, answer))
        begin = question_text(prompt) if rows == ANSWER else f" {prompt} "
        behind.append(len(whole) - _in_common(whole, model.tokenizer.ids(begin)))
    if rows == ANSWER:
        return RowSet("last", count=behind)
    return RowSet("text", skip_first=inputs.tail_tokens, skip_last=behind)


def _in_common(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens at the beginning that are the same: where two texts meet, a token may belong to both."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))
