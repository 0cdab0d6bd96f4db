"""Finds the number of an adaptive budget that leaves out a wanted part of the objects, for the small model."""

from __future__ import annotations

import torch
from torch import Tensor

from fastsam3d.mllm.mini.model import SceneLanguageModel
from fastsam3d.mllm.mini.prompts import build_prompts, observe
from fastsam3d.mllm.predictor.batch import predictor_batch
from fastsam3d.mllm.predictor.budget_search import FoundBudget, search_budget
from fastsam3d.mllm.predictor.network import AttentionPredictor
from fastsam3d.mllm.scenes.questions import make_questions
from fastsam3d.mllm.scenes.rooms import make_room
from fastsam3d.mllm.spans import layout_of

FIRST_SEED = 800_000_000
"""Of rooms that neither training nor the benchmark uses."""
FEWEST, MOST = 30, 100
"""Objects of such a room."""


@torch.inference_mode()
def predicted_logits(
    model: SceneLanguageModel, rooms: int = 71, questions: int = 18, predictor: AttentionPredictor | None = None
) -> list[Tensor]:
    """Scores of the objects for questions about rooms of 30 to 100 objects, (objects,) of each question.

    Args:
        model: whose prompts are scored.
        rooms, questions: that are predicted; the sizes of the rooms are spread evenly.
        predictor: of this model; None: the one that it carries.
    """
    network = model.language_model.attention_predictor if predictor is None else predictor
    logits: list[Tensor] = []
    for index in range(rooms):
        room = make_room(FIRST_SEED + index, FEWEST + index * (MOST - FEWEST) // max(rooms - 1, 1))
        texts = [question.text for question in make_questions(room, questions, room.seed)]
        prompts = build_prompts(model, [observe(room)] * len(texts), texts)
        layout = layout_of([[span] for span in prompts.visual], prompts.inputs["attention_mask"].bool())
        boxes = torch.stack([entry["boxes"] for entry in prompts.objects]).to(model.token_size.device)
        batch = predictor_batch(layout, prompts.inputs["inputs_embeds"], boxes)
        logits += list(network(batch).cpu())
    return logits


def find_budget(
    model: SceneLanguageModel, target: float, rooms: int = 71, questions: int = 18, rule: str = "mass"
) -> FoundBudget:
    """Searches what leaves out `target` percent of the objects, on the scores of `predicted_logits`."""
    return search_budget(predicted_logits(model, rooms, questions), None, target, rule=rule)
