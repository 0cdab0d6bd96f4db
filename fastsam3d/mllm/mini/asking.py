"""Asks the small model about a room, without pruning and with it, and draws what was pruned."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.errors import UserError
from fastsam3d.mllm.dropping.choices import KeptGroups
from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.mini.model import SceneLanguageModel
from fastsam3d.mllm.mini.prompts import RoomPrompts, answer, build_prompts, observe
from fastsam3d.mllm.scenes.drawing import Drawing, draw_room
from fastsam3d.mllm.scenes.rooms import Room

if TYPE_CHECKING:
    from PIL.Image import Image

FAMILY = "mllm"
LONGEST_QUESTION = 48
"""Most words of a question. The longest questions of the training have about 20."""
ROUNDS = 5
"""How often the reading of the prompt is measured, with pruning and without."""
UNPRUNED = "unpruned"


@dataclass(frozen=True)
class Reading:
    """One answer, with or without pruning.

    Attributes:
        name: name of the preset, or "unpruned".
        answer: the answer in words.
        milliseconds: median time of reading the prompt, scoring included.
    """

    name: str
    answer: str
    milliseconds: float


@dataclass(frozen=True)
class Asked:
    """A question about a room of N objects, with both answers.

    Attributes:
        room, question: what was asked.
        plain, pruned: the answer without pruning, and the answer with it.
        cuts: which objects stayed at each cut; empty where nothing could leave.
    """

    room: Room
    question: str
    plain: Reading
    pruned: Reading
    cuts: tuple[KeptGroups, ...]

    @property
    def kept(self) -> np.ndarray:
        """(N,) bool: objects that stayed after the last cut."""
        return self.cuts[-1].kept.numpy() if self.cuts else np.ones(len(self.room), bool)

    @property
    def heat(self) -> np.ndarray | None:
        """(N,) 0..1: share of the mass that the scores of the first cut gave each object, divided by the largest share.

        None without scores.
        """
        if not self.cuts:
            return None
        shares = self.cuts[0].shares().numpy()
        return shares / max(float(shares.max()), 1e-12)

    def lines(self) -> list[tuple[str, str]]:
        """Two lines, without pruning and with it: a name, and a text with the answer and the milliseconds.

        The second text also says how many objects stayed.
        """
        plain, pruned = (
            f"{named(way.answer, self.room)}; prompt read in {way.milliseconds:.1f} ms"
            for way in (self.plain, self.pruned)
        )
        stayed = f"{int(self.kept.sum())} of {len(self.room)} objects stayed"
        return [(self.plain.name, plain), (self.pruned.name, f"{pruned}, {stayed}")]

    def picture(self, titled: bool = True) -> Image:
        """Draws the room from above. It shows which objects stayed and which objects the pruned answer names.

        Args:
            titled: also write the question and the answers above the room.
        """
        title, lines = (self.question, self.lines()) if titled else ("", [])
        framed = indices_of(self.pruned.answer, self.room)
        return draw_room(self.room, Drawing(title, lines, self.kept, self.heat, framed))


def check_question(question: str) -> str:
    """Checks a question, and returns it with single blanks between its words.

    Raises:
        UserError: it is empty, too long, or has a word that the model does not know.
    """
    question = " ".join(question.split())
    if not question:
        raise UserError('a question is missing: ask, for instance, "the lamp left of the television"')
    words = len(question.split())
    if words > LONGEST_QUESTION:
        raise UserError(f"the question has {words} words: ask in at most {LONGEST_QUESTION}")
    tokens.encode(question)
    return question


def pruning_preset(preset: str) -> AccelerationConfig:
    """Loads the settings of a preset of language models, by its name or from a YAML file.

    Raises:
        UserError: there is no such preset, or a setting in it is not possible.
    """
    return load_preset(preset, {}, FAMILY)


def ask(
    model: SceneLanguageModel,
    room: Room,
    question: str,
    preset: AccelerationConfig | str = "balanced",
    step: Callable[[], None] = lambda: None,
) -> Asked:
    """Asks a question without pruning and with it, and measures in turns how long the prompt takes to read.

    Afterwards the model is not accelerated, as before.

    Args:
        model: a model that is not accelerated.
        room: the room that the question is about.
        question: in words that the model knows.
        preset: preset of the pruning.
        step: called before each round of the measurement. An exception from it ends the call.

    Raises:
        UserError: the question or the preset is not possible.
    """
    question = check_question(question)
    config = pruning_preset(preset) if isinstance(preset, str) else preset
    seen = observe(room)
    prompts = build_prompts(model, [seen], [question])
    (plain_answer,) = answer(model, [seen], [question])
    with accelerate(model, config) as acceleration:
        (pruned_answer,) = answer(model, [seen], [question])
        cuts = tuple(record for records in acceleration.kept() for record in records)
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        step()
        taken[0].append(_read(model, prompts, False))
        with accelerate(model, config):
            _read(model, prompts, True)  # what is attached anew makes its tables in the first call
            taken[1].append(_read(model, prompts, True))
    plain, pruned = (statistics.median(times[1:]) for times in taken)
    return Asked(
        room, question, Reading(UNPRUNED, plain_answer, plain), Reading(config.name, pruned_answer, pruned), cuts
    )


@torch.no_grad()
def _read(model: SceneLanguageModel, prompts: RoomPrompts, prunes: bool) -> float:
    """Milliseconds of reading the prompt once."""
    said = {"visual": prompts.visual, "objects": prompts.objects} if prunes else {}
    start = _now(model)
    model.language_model(**prompts.inputs, **said, use_cache=True, logits_to_keep=1)
    return 1000 * (_now(model) - start)


def _now(model: SceneLanguageModel) -> float:
    if model.token_size.device.type == "cuda":
        torch.cuda.synchronize(model.token_size.device)
    return time.perf_counter()


def indices_of(text: str, room: Room) -> list[int]:
    """Indices of the objects that an answer names, each once. Objects that are not in the room are left out."""
    numbers = [int(number) for number in re.findall(r"<OBJ(\d+)>", text)]
    rows = {number: row for row, number in enumerate(room.identifiers.tolist())}
    return [rows[number] for number in dict.fromkeys(numbers) if number in rows]


def named(text: str, room: Room) -> str:
    """Adds a description after each identifier in an answer: "<OBJ012> (large red chair)"."""
    rows = {f"{number:03d}": row for row, number in enumerate(room.identifiers.tolist())}

    def with_name(match: re.Match[str]) -> str:
        row = rows.get(match.group(1))
        return f"{match.group()} ({'not in this room' if row is None else room.name(row)})"

    return re.sub(r"<OBJ(\d+)>", with_name, text) or "(no words)"
