"""The result of an evaluation of Chat-Scene as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastsam3d.evaluation.language_models.chat_scene.settings import BUDGETS
from fastsam3d.evaluation.language_models.tables import table
from fastsam3d.mllm.benchmarks import BENCHMARKS

SHOWN = {
    "scanrefer": {"acc@0.25": "Acc@0.25", "acc@0.5": "Acc@0.5"},
    "multi3drefer": {"f1@0.25": "F1@0.25", "f1@0.5": "F1@0.5"},
    "scan2cap": {"cider@0.5": "CIDEr@0.5", "bleu4@0.5": "BLEU-4@0.5"},
    "scanqa": {"cider": "CIDEr", "bleu4": "BLEU-4", "em": "EM"},
    "sqa3d": {"em": "EM", "em_refined": "EM-R"},
}
"""Scores that are shown, as papers call them."""
HEAD = ("benchmark", "questions", "scores, times 100", "visual tokens left out", "objects kept", "prompt read in ms")


def render(result: Mapping[str, Any]) -> str:
    """A line that says what was evaluated, and a row for each benchmark. Scores are times 100, as in papers."""
    maps = result["maps"]
    ranked = "" if maps is None else f" Objects are ranked by stored maps ({maps['kind']}, rows {maps['rows']})."
    what = f"Preset {result['preset']}{_pruning(result['settings'].get('pruning'))}, split {result['split']}.{ranked}"
    return f"{what}\n\n{table(HEAD, map(_row, result['benchmarks']))}\n"


def _pruning(settings: Mapping[str, Any] | None) -> str:
    """Where objects leave, and how many stay."""
    if settings is None:
        return ""
    layer = f"layer {settings['layer']}" if settings["layer"] >= 0 else f"depth {settings['depth']:g}"
    number = next(name for name, rule in BUDGETS.items() if rule == settings["budget"])
    return f" ({layer}, {number} {settings[number]:g}{', masked' if settings['mask'] else ''})"


def _row(record: Mapping[str, Any]) -> list[str]:
    name, report, scores = record["benchmark"], record["report"], record["scores"]
    shown = [
        f"{title} {'-' if scores.get(key) is None else f'{100 * scores[key]:.2f}'}"
        for key, title in SHOWN[name].items()
    ]
    left_out = f"{100 * report['pruned_share']:.1f} %"
    if report["masked_share"]:
        left_out += f", {100 * report['masked_share']:.1f} % masked"
    kept = record["kept_objects"]
    return [
        BENCHMARKS[name].title,
        str(record["questions"]),
        ", ".join(shown),
        left_out,
        "-" if kept is None else f"{kept:.1f}",
        f"{1000 * report['prefill_seconds'] / max(report['samples'], 1):.1f}",
    ]
