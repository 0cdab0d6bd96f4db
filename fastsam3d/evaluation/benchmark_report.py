"""The files of a benchmark: JSON, Markdown and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsam3d.evaluation.options import write_json, write_text
from fastsam3d.evaluation.tables import difference_table, main_table, stage_table


def write_results(result: dict[str, Any], folder: Path) -> str:
    """Write bench.json, bench.md, pareto.png and stages.png into a folder; returns the Markdown."""
    from fastsam3d.evaluation import plots

    write_json(folder / "bench.json", result)
    text = report(result)
    write_text(folder / "bench.md", text)
    tables = _by_guidance(result["rows"])
    for guidance, rows in tables.items():
        ending = "" if len(tables) == 1 else f"-guidance-{guidance}"
        plots.pareto(rows, folder / f"pareto{ending}.png")
        plots.stage_bars([row for row in rows if row["timed"]], folder / f"stages{ending}.png")
    return text


def report(result: dict[str, Any]) -> str:
    """The benchmark as Markdown."""
    meta, parts = result["meta"], []
    for guidance, rows in _by_guidance(result["rows"]).items():
        timed = [row for row in rows if row["timed"]]
        parts += [
            f"### {meta['objects']} objects, seed {meta['seed']}, guidance {guidance}, {meta['device_name']}",
            main_table(rows),
            "Paired differences to `off`, 95 % confidence intervals; fidelity and layout themselves:",
            difference_table(rows),
            "Seconds by stage:",
            stage_table(timed),
        ]
    return "\n\n".join([*parts, meta["protocol"]]) + "\n"


def _by_guidance(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault(row["guidance"], []).append(row)
    return tables
