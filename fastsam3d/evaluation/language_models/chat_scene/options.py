"""Options of the commands on data of Chat-Scene, in a module of their own: help and mistyped keys need no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.flags import flag
from fastsam3d.basics.options import boolean, option, optional, optional_text, whole, words

SPLITS = ("train", "val")
TYPES = ("float32", "bfloat16", "float16")


def _one_of(*choices: str) -> str:
    return " or ".join(choices)


def split_name(text: str) -> str:
    if text not in SPLITS:
        raise ValueError(_one_of(*SPLITS))
    return text


def type_name(text: str) -> str:
    if text not in TYPES:
        raise ValueError(_one_of(*TYPES))
    return text


@dataclass(frozen=True, kw_only=True)
class ChatSceneOptions:
    """Files of Chat-Scene, and how its language model is run. The first three have no default and must be given."""

    vicuna: str | None = flag(optional_text, "folder of Vicuna-7B v1.5; needed", None)
    checkpoint: str | None = flag(optional_text, "checkpoint of Chat-Scene (.pth); needed", None)
    annotations: str | None = flag(optional_text, "folder of questions and attributes; needed", None)
    features: tuple[str, ...] = flag(
        words, "feature files, 3D first, then 2D; none: the published names in the annotation folder", ()
    )
    attributes: str | None = flag(optional_text, "file of segmented objects; null: in the annotation folder", None)
    device: str = flag(str, "cpu or cuda", "cpu")
    dtype: str = flag(type_name, f"number type of the model: {', '.join(TYPES)}", "float32")


@dataclass(frozen=True, kw_only=True)
class QuestionOptions(ChatSceneOptions):
    """Which questions a command is about."""

    benchmark: tuple[str, ...] = option(
        ("all",), words, "scanrefer, multi3drefer, scan2cap, scanqa, sqa3d, several of them, or all"
    )
    split: str = option("val", split_name, "split of the questions: train or val")
    questions: int | None = option(
        None, optional(whole(1)), "number of questions of each benchmark, the first ones; null: all"
    )
    skip_missing_scenes: bool = option(False, boolean, "leave out questions about scenes without features")
    batch: int = option(1, whole(1), "questions in a batch")
    resume: bool = option(True, boolean, "continue an interrupted run; false starts again")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(QuestionOptions):
    """Options of the evaluation."""

    preset: str = option("off", str, "preset of the pruning: its name or a YAML file")
    maps: str | None = option(None, optional_text, "stored maps, which rank the objects instead of the preset's scorer")
    output: str = option("chat_scene", str, "folder for answers, scores.json and scores.md")
    seed: int | None = option(None, optional(whole(0)), "seed of a random order of the objects; null: their own order")
    num_beams: int = option(5, whole(1), "beams of the generation")
    max_new_tokens: int = option(64, whole(1), "most tokens of an answer")
    meteor: bool = option(True, boolean, "compute METEOR where pycocoevalcap and Java are installed")
