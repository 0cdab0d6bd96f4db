"""The files of a benchmark: JSON, Markdown, plots, and the marked tables of a document."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsam3d.basics.files import finite, write_text
from fastsam3d.errors import UserError
from fastsam3d.evaluation.benchmark import limit_plot, plots, tables
from fastsam3d.evaluation.benchmark.result import RESULT, load_result
from fastsam3d.evaluation.benchmark.verdicts import front_table, warning_of
from fastsam3d.evaluation.reporting.tables import guidance_text

TABLES, RECORDS_TABLE = "bench.md", "bench.csv"
START = re.compile(r"<!-- bench:(?P<name>[\w-]+)(?: of (?P<folder>.+?))? -->")
BLOCK = re.compile(START.pattern + r".*?<!-- /bench:(?P=name) -->", re.DOTALL)


def write_results(result: dict[str, Any], folder: Path) -> str:
    """Writes bench.json, bench.csv, bench.md and the plots of a run into a folder; returns the Markdown."""
    result = finite(result)
    write_text(folder / RESULT, result_text(result))
    write_text(folder / RECORDS_TABLE, records_text(result))
    draw(result, folder)
    text = report(result)
    write_text(folder / TABLES, text)
    return text


def result_text(result: dict[str, Any]) -> str:
    """bench.json: measurements one a line and with six digits, because there are thousands of them."""
    head = json.dumps({key: value for key, value in result.items() if key != "objects"}, indent=1, allow_nan=False)
    lines = [json.dumps(_six_digits(record), allow_nan=False, separators=(",", ":")) for record in result["objects"]]
    return head.removesuffix("\n}") + ',\n "objects": [\n' + ",\n".join(lines) + "\n ]\n}\n"


def records_text(result: dict[str, Any]) -> str:
    """bench.csv: one line an object and method, as in the records; seconds by stage are `seconds_STAGE`."""
    lines = []
    for record in result["objects"]:
        stages = {f"seconds_{stage}": value for stage, value in record.get("stage_seconds", {}).items()}
        plain = {key: value for key, value in record.items() if not isinstance(value, (dict, list))}
        lines.append(_six_digits(plain | stages))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _six_digits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _six_digits(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def render_again(folder: Path, document: str | None = None) -> str:
    """Tables and plots of an earlier run once more, and, if asked for, into a document; returns the Markdown."""
    result = load_result(folder)
    text = write_results(result, folder)
    if document is not None:
        update_document(Path(document), result, folder)
    return text


def draw(result: dict[str, Any], folder: Path) -> None:
    """The plots of a result, under the names of `image_names`."""
    names, sweep = image_names(result), result["meta"].get("sweep")
    by_guidance = _by_guidance(result["rows"])
    if sweep:
        plots.sweep_curves(by_guidance, sweep, folder / names["sweep"][0])
        return
    for index, rows in enumerate(by_guidance.values()):
        plots.pareto(rows, folder / names["pareto"][index])
        if "limit" in names:
            limit_plot.distances(rows, folder / names["limit"][index])
        plots.stage_bars([row for row in rows if row["timed"]], folder / names["stages"][index])


def image_names(result: dict[str, Any]) -> dict[str, list[str]]:
    """File names of the plots by what they show, one for each guidance strength."""
    if result["meta"].get("sweep"):
        return {"sweep": [f"sweep-{result['meta']['sweep']}.png"]}
    strengths = list(_by_guidance(result["rows"]))
    endings = [f"-guidance-{_name(strength)}" for strength in strengths] if len(strengths) > 1 else [""]
    judged = any(row["method"] == "limit" for row in result["rows"])
    drawn = ("pareto", *(("limit",) if judged else ()), "stages")
    return {name: [f"{name}{ending}.png" for ending in endings] for name in drawn}


def report(result: dict[str, Any]) -> str:
    """The benchmark as Markdown."""
    meta, parts, images = result["meta"], [], image_names(result)
    for index, (guidance, rows) in enumerate(_by_guidance(result["rows"]).items()):
        parts.append(f"### {title(meta, guidance)}")
        for names in images.values():
            name = names[index] if index < len(names) else None
            if name is not None:
                parts.append(f"![{Path(name).stem}]({name})")
        objects = [record for record in result["objects"] if record["guidance"] == guidance]
        parts += [part for _, heading, table in sections(rows, objects) for part in (heading, table)]
    if (doubt := warning_of(meta["objects"])) is not None:
        parts.insert(0, f"**Warning: {doubt}**")
    parts += [f"Left out: {name}, {reason}" for name, reason in meta.get("left_out", {}).items()]
    return "\n\n".join([*parts, meta["protocol"]]) + "\n"


def title(meta: dict[str, Any], guidance: float | str | None) -> str:
    """Heading of a result: objects, scenes, seed and device, for one strength of guidance or for all."""
    counts = [f"{meta[key]} {key if meta[key] != 1 else key[:-1]}" for key in ("objects", "scenes") if meta.get(key)]
    strength = [] if guidance is None else [f"guidance {guidance_text(guidance)}"]
    return ", ".join([*counts, f"seed {meta['seed']}", *strength, str(meta["device_name"])])


def sections(rows: Sequence[dict[str, Any]], objects: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Name, heading and Markdown of every table of one guidance strength, from its rows and records."""
    timed = [row for row in rows if row["timed"]]
    found = [
        ("main", "Quality against the truth, and time:", tables.main_table(rows)),
        ("fidelity", "Fidelity to `off` with the same noise, the judge:", tables.fidelity_table(rows)),
        ("front", "Which methods others beat in both cost and fidelity:", front_table(objects)),
        ("differences", "Paired differences to `off`, 95 % intervals:", tables.difference_table(rows)),
        ("pose", "Pose errors (paired difference to `off`):", tables.pose_table(rows)),
        ("cost", "What was computed for an object:", tables.cost_table(timed)),
        ("stages", "Seconds by stage:", tables.stage_table(timed)),
    ]
    split = tables.split_table(timed)
    if split is not None:
        found.append(("split", "Exact and approximate savings:", split))
    limit = tables.limit_table(rows)
    if limit is not None:
        found.insert(2, ("limit", "Distance to the limit, the second judge:", limit))
    return found


def update_document(document: Path, result: dict[str, Any], folder: Path) -> None:
    """Replaces the text between the markers of a Markdown document by this result.

    Markers are `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`; NAME is a table ("main", "fidelity", ...), a plot
    ("pareto", "plot-stages", "plot-limit", "sweep"), "run", or "ablation", "sweep-stride", "judges" and the like for
    everything of such a run; "judges" is both judges of a run with the limit.

    A filled block says from which folder it comes, `<!-- bench:NAME of FOLDER -->`, FOLDER relative to the document. No
    other folder fills it afterwards: one page can hold tables of several runs.

    Raises:
        UserError: no document, a marker without its end, or none that this result fills.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"bench: cannot read document={document} ({error.strerror}): give a Markdown file") from None
    parts, origin = document_parts(result, folder, document.parent), _relative(folder, document.parent)
    for found in START.finditer(text):
        if f"<!-- /bench:{found['name']} -->" not in text[found.end() :]:
            raise UserError(f"bench: {document} has {found[0]} without its end: add it where the generated part ends")
    belonging = [found for found in BLOCK.finditer(text) if found["name"] in parts]
    others = {found["folder"] for found in belonging} - {None, origin}
    filled = [found for found in belonging if found["folder"] in (None, origin)]
    if not filled and others:
        raise UserError(
            f"bench: the blocks of {document} for such results belong to {', '.join(sorted(others))}: to fill one from "
            f"{origin}, delete the words 'of FOLDER' in its first marker"
        )
    if not filled:
        raise UserError(f"bench: {document} has no marker such as <!-- bench:main --> for this result")
    for found in reversed(filled):  # from the end, so that earlier places stay right
        name = found["name"]
        block = f"<!-- bench:{name} of {origin} -->\n\n{parts[name]}\n\n<!-- /bench:{name} -->"
        text = text[: found.start()] + block + text[found.end() :]
    write_text(document, text)


def document_parts(result: dict[str, Any], folder: Path, beside: Path) -> dict[str, str]:
    """Generated Markdown by marker."""
    meta = result["meta"]
    grouped = _by_guidance(result["rows"])
    pictures = {
        name: "\n\n".join(f"![{Path(file).stem}]({_relative(folder / file, beside)})" for file in files)
        for name, files in image_names(result).items()
    }
    titles = {guidance: f"**{title(meta, guidance)}**" for guidance in grouped}
    joined: dict[str, list[str]] = {}
    for guidance, rows in grouped.items():
        for name, _, table in sections(
            rows, [record for record in result["objects"] if record["guidance"] == guidance]
        ):
            joined.setdefault(name, []).append(f"{titles[guidance]}\n\n{table}")
    parts = {name: "\n\n".join(pieces) for name, pieces in joined.items()}
    if meta.get("ablation"):
        return {"ablation": "\n\n".join([parts["main"], parts["fidelity"]])}
    if meta.get("sweep"):
        return {f"sweep-{meta['sweep']}": "\n\n".join([pictures["sweep"], parts["fidelity"]])}
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    steps = " + ".join(str(count) for count in meta["steps"].values())
    strengths = ", ".join(guidance_text(guidance) for guidance in grouped)
    about = title(meta, None)
    parts["run"] = f"{about}; {steps} steps; guidance {strengths}; {versions}."
    drawn = {"pareto": pictures["pareto"], "plot-stages": pictures["stages"]}
    if "limit" in pictures:
        drawn["plot-limit"] = pictures["limit"]
        drawn["judges"] = "\n\n".join([parts["run"], pictures["limit"], parts["limit"], parts["fidelity"]])
    return {**parts, **drawn}


def _relative(path: Path, beside: Path) -> str:
    return Path(os.path.relpath(path, beside)).as_posix()


def _name(guidance: Any) -> str:
    return guidance_text(guidance).replace("/", "-")


def _by_guidance(rows: Sequence[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    grouped: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["guidance"], []).append(row)
    return grouped
