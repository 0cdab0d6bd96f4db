"""Finds the mass of the adaptive budget that leaves out a wanted part of the objects, for the small model."""

from __future__ import annotations

import torch

from fastsam3d.mllm.mini.model import SceneLanguageModel
from fastsam3d.mllm.predictor.alpha import FoundAlpha, search_alpha
from fastsam3d.mllm.predictor.network import AttentionPredictor
from fastsam3d.training.language_model.batches import make_batch
from fastsam3d.training.language_model.maps import predictor_inputs

FIRST_SEED = 800_000_000
"""Of rooms that neither training nor the benchmark uses."""
FEWEST, MOST = 30, 100


@torch.inference_mode()
def find_alpha(
    model: SceneLanguageModel, predictor: AttentionPredictor, target: float, rooms: int = 71, questions: int = 18
) -> FoundAlpha:
    """Predicts the maps of questions about rooms of 30 to 100 objects, and searches alpha on them.

    Args:
        model, predictor: that belong together.
        target: percent of the objects that shall be left out.
        rooms, questions: that are predicted; the sizes of the rooms are spread evenly.
    """
    logits = []
    for index in range(rooms):
        objects = FEWEST + index * (MOST - FEWEST) // max(rooms - 1, 1)
        batch = make_batch(FIRST_SEED + index, 1, objects, questions)
        logits += list(predictor(predictor_inputs(model, batch)))
    return search_alpha(logits, None, target)
