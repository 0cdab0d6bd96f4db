"""Tables of `smollm_pruning.py`: from single readings and batches to medians, counts and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

OFF = "off"
"""Method that the others are compared with."""


@dataclass(frozen=True)
class Reading:
    """One prompt read once.

    Attributes:
        method: preset, with `@LAYER` for another layer of the cut.
        objects: in the prompt.
        round: from 1 on.
        milliseconds: wall clock up to the logits of the last token.
        scoring_milliseconds: of them, for ranking.
        prompt_tokens, visual_tokens: all tokens, and those of the objects' lines.
        left_out: share of the visual tokens that was left out, averaged over the layers.
        fewer_operations: operations without pruning, divided by those with it.
    """

    method: str
    objects: int
    round: int
    milliseconds: float
    scoring_milliseconds: float
    prompt_tokens: int
    visual_tokens: int
    left_out: float
    fewer_operations: float


@dataclass(frozen=True)
class Answers:
    """A batch of questions answered by one method.

    Attributes:
        method: as for `Reading`.
        right: for each question whether the colour is right.
        asked_stays: for each question whether the object that it is about stayed to the end.
        left_out: share of the visual tokens that was left out, averaged over the layers.
        kept: share of the objects that stayed to the end.
    """

    method: str
    right: Sequence[bool]
    asked_stays: Sequence[bool]
    left_out: float
    kept: float


def markdown(content: Mapping[str, Any]) -> str:
    """The tables of a run.

    Args:
        content: of the JSON file.
    """
    environment = content["environment"]
    lines = [
        f"{environment['machine']}, {environment['threads']} thread{'s' if environment['threads'] > 1 else ''}, "
        f"PyTorch {environment['torch']}, transformers {environment['transformers']}.",
        "",
    ]
    for objects in dict.fromkeys(reading["objects"] for reading in content["readings"]):
        lines += _speed([reading for reading in content["readings"] if reading["objects"] == objects])
    if content["answers"]:
        lines += _colours(content["answers"])
    lines += [f"The time budget ended after {what}." for what in content["unfinished"]]
    return "\n".join(lines).rstrip() + "\n"


def _speed(readings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of one size. Ratios are formed within a round."""
    plain = {reading["round"]: reading["milliseconds"] for reading in readings if reading["method"] == OFF}
    rows = []
    for method in dict.fromkeys(reading["method"] for reading in readings):
        own = [reading for reading in readings if reading["method"] == method]
        times = [reading["milliseconds"] for reading in own]
        ratios = [plain[reading["round"]] / reading["milliseconds"] for reading in own if reading["round"] in plain]
        rows.append(
            [
                f"`{method}`",
                f"{own[0]['left_out']:.0%}",
                f"{median(times):.0f}",
                f"{min(times):.0f}–{max(times):.0f}",
                f"{median(reading['scoring_milliseconds'] for reading in own):.1f}",
                f"{median(ratios):.2f}" if ratios else "",
                f"{own[0]['fewer_operations']:.2f}",
            ]
        )
    first = readings[0]
    title = f"**{first['visual_tokens']} visual tokens** of {first['objects']} objects, {first['prompt_tokens']} in all"
    rounds = len({reading["round"] for reading in readings})
    header = ("preset", "left out", "ms", "range", "ms of scoring", "times faster", "times fewer operations")
    return [f"{title}, medians, rounds: {rounds}", "", *_table(header, rows), ""]


def _colours(batches: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of answers. What counts most are the questions that the whole prompt answers right."""
    methods = list(dict.fromkeys(batch["method"] for batch in batches))
    right = {name: [r for batch in batches if batch["method"] == name for r in batch["right"]] for name in methods}
    plain = right.get(OFF, [])
    rows = []
    for method in methods:
        own = [batch for batch in batches if batch["method"] == method]
        stays = [stayed for batch in own for stayed in batch["asked_stays"]]
        still = [now for now, before in zip(right[method], plain, strict=False) if before]
        rows.append(
            [
                f"`{method}`",
                f"{_mean(batch['left_out'] for batch in own):.0%}",
                f"{_mean(batch['kept'] for batch in own):.0%}",
                f"{sum(stays) / len(stays):.0%}",
                f"{sum(right[method])} of {len(right[method])}",
                f"{sum(still)} of {len(still)} ({sum(still) / len(still):.0%})" if still else "",
            ]
        )
    header = ("preset", "left out", "objects that stay", "the asked one stays", "right", "of those right in `off`")
    asked = len(right[methods[0]])
    return [f"**The colour of one of 20 objects**, {asked} questions:", "", *_table(header, rows), ""]


def _mean(values: Any) -> float:
    listed = list(values)
    return float(sum(listed) / len(listed))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]
