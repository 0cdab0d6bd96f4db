"""The benchmark's result as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastsam3d.mllm.scenes.questions import KINDS, TASKS

_HEADS = {
    "grounding": "grounding Acc@0.5",
    "multi_grounding": "multi F1@0.5",
    "caption": "captions CIDEr×10",
    "question": "questions EM",
    "situated": "situated EM",
}


def render(result: Mapping[str, Any]) -> str:
    """All tables of a result."""
    fewest, most = result["objects"]
    parts = [
        f"{result['questions']} questions about {result['rooms']} rooms of {fewest} to {most} objects that nothing was "
        f"trained on; a model of {result['layers']} layers; version {result['version']}. Scores in percent. Limits are "
        "95 % intervals, by drawing rooms.",
        _scores(result["rows"]),
        "Exact answers in percent, by kind of question:",
        _kinds(result["rows"]),
    ]
    if result.get("timing"):
        parts += [
            "Milliseconds, measured in turns in one run; medians. The speed-up is that of reading the prompts, scoring "
            "included, with the smallest and largest of the rounds.",
            _timing(result["timing"]),
        ]
    parts += [
        "The same settings at the size of Vicuna-7B, counted: reading a prompt with 90 tokens of text, without the "
        "predictor.",
        _counted(result["counted"]),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is on the left, all others on the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _scores(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["row", "tokens left out", "objects kept", *(_HEADS[task] for task in TASKS), "mean", "of the unpruned"]
    lines = []
    for row in rows:
        low, high = row["score_ratio_ci"]
        kept = "all" if row["kept_objects"] is None else f"{row['kept_objects']:.1f}"
        lines.append(
            [
                row["method"],
                f"{100 * row['pruned_share']:.1f} %",
                kept,
                *(f"{row['scores'][task]:.1f}" for task in TASKS),
                f"{row['score']:.1f}",
                f"{row['score_ratio']:.1f} ({low:.1f} to {high:.1f})",
            ]
        )
    return table(head, lines)


def _kinds(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["row", *KINDS, "mean"]
    return table(
        head,
        ([row["method"], *(f"{row['kinds'][kind]:.1f}" for kind in KINDS), f"{row['exact']:.1f}"] for row in rows),
    )


def _timing(records: Sequence[Mapping[str, Any]]) -> str:
    head = [
        "objects",
        "batch",
        "beams",
        "row",
        "prefill ms",
        "of it scoring",
        "speed-up",
        "decode ms a token",
        "KV MiB",
    ]
    return table(
        head,
        (
            [
                str(one["objects"]),
                str(one["batch"]),
                str(one["beams"]),
                one["method"],
                f"{one['prefill_ms']:.1f}",
                f"{one['scoring_ms']:.1f}",
                "{:.2f} ({:.2f} to {:.2f})".format(one["prefill_speedup"], *one["prefill_speedup_range"]),
                f"{one['decode_ms']:.1f}",
                f"{one['cache_mib']:.2f}",
            ]
            for one in records
        ),
    )


def _counted(records: Sequence[Mapping[str, Any]]) -> str:
    head = ["objects", "row", "TFLOP", "fewer operations", "KV MiB"]
    return table(
        head,
        (
            [
                str(one["objects"]),
                one["method"],
                f"{one['tflop']:.2f}",
                f"{one['ratio']:.2f}x",
                f"{one['cache_mib']:.0f}",
            ]
            for one in records
        ),
    )
