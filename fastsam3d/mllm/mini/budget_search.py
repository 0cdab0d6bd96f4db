"""Finds the number of an adaptive budget that leaves out a given percentage of the objects, for the small model."""

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
"""First seed of the rooms. Neither the training nor the benchmark uses these seeds."""
FEWEST, MOST = 30, 100
"""Smallest and largest number of objects in such a room."""


@torch.inference_mode()
def predicted_logits(
    model: SceneLanguageModel, rooms: int = 71, questions: int = 18, predictor: AttentionPredictor | None = None
) -> list[Tensor]:
    """Makes rooms of 30 to 100 objects with questions, and predicts scores of the objects for each question.

    Args:
        model: the small model, which builds the prompts.
        rooms: number of rooms; their sizes are spread evenly.
        questions: number of questions about each room.
        predictor: a predictor for this model; None: the one that the model carries.

    Returns:
        For each question, logits (objects,), on the CPU.
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
    """Finds the number that leaves out `target` percent of the objects, on the scores of `predicted_logits`.

    Args:
        model, rooms, questions: as for `predicted_logits`.
        target, rule: as for `search_budget`.

    Raises:
        UserError: as for `search_budget`.
    """
    return search_budget(predicted_logits(model, rooms, questions), None, target, rule=rule)
