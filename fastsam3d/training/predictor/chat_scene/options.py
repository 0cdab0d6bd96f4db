"""Options of what makes maps of Chat-Scene and learns from them, without PyTorch: for help and mistyped keys."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.flags import flag
from fastsam3d.basics.options import option, optional_text
from fastsam3d.evaluation.language_models.chat_scene.options import ChatSceneOptions, QuestionOptions
from fastsam3d.training.language_model.options import LAST, ROWS
from fastsam3d.training.options import PredictorOptions


def rows_name(text: str) -> str:
    if text not in ROWS:
        raise ValueError(" or ".join(ROWS))
    return text


def use_of_boxes(text: str) -> str:
    if text not in ("required", "optional", "unused"):
        raise ValueError("required, optional or unused")
    return text


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions(QuestionOptions):
    """Options of the extraction of attention maps."""

    rows: str = option(LAST, rows_name, f"rows of the prompt that count: {', '.join(ROWS)}; Fast3D takes text")
    output: str = option("maps.safetensors", str, "file of the maps")


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(QuestionOptions):
    """Options of the prediction of attention maps."""

    predictor: str | None = option(None, optional_text, "file of the predictor; needed")
    output: str = option("predicted.safetensors", str, "file of the predicted maps, which are logits")


@dataclass(frozen=True, kw_only=True)
class MapsPredictorOptions(PredictorOptions, ChatSceneOptions):
    """Settings of the training of a predictor on stored maps of Chat-Scene."""

    maps: str = flag(str, "stored maps to learn from")
    held_out: str | None = flag(str, "stored maps of the other split, to measure with", None)
    held_out_attributes: str | None = flag(str, "boxes of that split; else in the annotation folder", None)
    batch: int = flag(int, "questions of a step", 64)
    boxes: str = flag(use_of_boxes, "required, optional or unused", "required")
    width: int = flag(int, "of the predictor, a multiple of 4; other sizes follow it", 64)
