"""Measures milliseconds of every row: in turns, in one run, without the warm-up, and with the device synchronised."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastsam3d.evaluation.measuring.methods import Method
from fastsam3d.mllm.mini.model import SceneLanguageModel
from fastsam3d.mllm.mini.prompts import ObservedRoom, RoomPrompts, build_prompts, observe
from fastsam3d.mllm.scenes.features import Features
from fastsam3d.mllm.scenes.questions import make_questions
from fastsam3d.mllm.scenes.rooms import make_room
from fastsam3d.procedural import HELD_OUT_SEED

LARGEST_ROOM = 100
NEW_TOKENS = 8  # steps of generation that are timed


@dataclass(frozen=True)
class Setting:
    """What is timed.

    Attributes:
        objects: of each prompt.
        batch: prompts that are read at once.
        beams: of the generation.
    """

    objects: int
    batch: int
    beams: int


def large_room(objects: int, seed: int) -> tuple[ObservedRoom, str]:
    """Makes a prompt to time: `objects` objects, from several rooms where one room is too small, and a question."""
    parts: list[ObservedRoom] = []
    for number, first in enumerate(range(0, objects, LARGEST_ROOM)):
        parts.append(observe(make_room(seed + number, min(objects - first, LARGEST_ROOM))))
    question = make_questions(make_room(seed, min(objects, LARGEST_ROOM)), 1, seed)[0].text
    geometry, appearance = (
        torch.cat([getattr(p.features, name) for p in parts]) for name in ("geometry", "appearance")
    )
    identifiers, boxes = (torch.cat([getattr(part, name) for part in parts]) for name in ("identifiers", "boxes"))
    return ObservedRoom(identifiers, Features(geometry, appearance), boxes), question


def time_rows(
    model: SceneLanguageModel, methods: Sequence[Method], settings: Sequence[Setting], rounds: int
) -> list[dict[str, Any]]:
    """Times all rows under all settings.

    Returns:
        One record for each row and setting. Milliseconds are medians over the rounds, for the whole batch: "prefill_ms"
        (scoring included), "scoring_ms", "generate_ms", and "decode_ms" of one step of generation. "prefill_speedup" is
        the median of the first row's "prefill_ms" divided by this row's, within each round;
        "prefill_speedup_range" is the smallest and the largest of them. "cache_mib" is what the cache holds after the
        prompts are read, in MiB.
    """
    records = []
    for setting in settings:
        rooms, questions = zip(
            *(large_room(setting.objects, HELD_OUT_SEED + 7000 + 20 * index) for index in range(setting.batch)),
            strict=True,
        )
        prompts = build_prompts(model, rooms, questions)
        taken: dict[str, list[dict[str, float]]] = {method.name: [] for method in methods}
        for _ in range(rounds + 1):
            for method in methods:
                taken[method.name].append(_one(model, method, prompts, setting))
        for method in methods:
            records.append(_record(method.name, setting, taken[method.name][1:], taken[methods[0].name][1:]))
    return records


@torch.no_grad()
def _one(model: SceneLanguageModel, method: Method, prompts: RoomPrompts, setting: Setting) -> dict[str, float]:
    """One timing: of reading the prompts twice, of which the first is not counted, and of a short generation."""
    language_model, device = model.language_model, model.token_size.device
    # Beam search copies the prompts before it reads them.
    inputs = {name: value.repeat_interleave(setting.beams, dim=0) for name, value in prompts.inputs.items()}
    said: dict[str, Any] = {"visual": prompts.visual, "objects": prompts.objects}
    generation = {"num_beams": setting.beams, "do_sample": False}
    limits = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    with method.attached(model) as acceleration:
        said = said if acceleration is not None else {}
        of_beams = {name: [v for v in value for _ in range(setting.beams)] for name, value in said.items()}
        language_model(**inputs, **of_beams, use_cache=True, logits_to_keep=1)
        if acceleration is not None:
            acceleration.reset_report()
        start = _now(device)
        output = language_model(**inputs, **of_beams, use_cache=True, logits_to_keep=1)
        prefill = _now(device) - start
        scoring = acceleration.report().scoring_seconds if acceleration is not None else 0.0
        cache = output["cache"] if "cache" in output else output["past_key_values"]  # its name since transformers 5
        held = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
        start = _now(device)
        language_model.generate(**prompts.inputs, **said, **generation, **limits)
        whole = _now(device) - start
    return {
        "prefill_ms": 1000 * prefill,
        "scoring_ms": 1000 * scoring,
        "generate_ms": 1000 * whole,
        "decode_ms": 1000 * max(whole - prefill, 0.0) / (NEW_TOKENS - 1),
        "cache_mib": held / 2**20,
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _record(
    name: str, setting: Setting, taken: Sequence[dict[str, float]], off: Sequence[dict[str, float]]
) -> dict[str, Any]:
    ratios = [a["prefill_ms"] / b["prefill_ms"] for a, b in zip(off, taken, strict=True)]
    return {
        "method": name,
        "objects": setting.objects,
        "batch": setting.batch,
        "beams": setting.beams,
        **{key: statistics.median([one[key] for one in taken]) for key in taken[0]},
        "prefill_speedup": statistics.median(ratios),
        "prefill_speedup_range": [min(ratios), max(ratios)],
    }
