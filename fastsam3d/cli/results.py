"""Formats what `infer` and `scene` print on stdout: the report as a table or as JSON, and the files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.cli.flags import Arguments
from fastsam3d.jobs.output_folder import json_text
from fastsam3d.jobs.report import render

SMALL_MODEL = "mini"
SMALL_MODEL_TEXT = (
    "Made by the small demonstration model, which was trained on synthetic toys. For photographs use model=sam3d; the "
    "official weights: docs/official_weights.md."
)


def text_of(arguments: Arguments, report: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """The text on stdout that the flags ask for.

    Args:
        report: of the job.
        paths: of the files that were written.
    """
    if arguments.as_json:
        return json_text(report)
    if arguments.quiet:
        return ""
    closing = f"\n{SMALL_MODEL_TEXT}\n" if report["model"] == SMALL_MODEL else ""
    return f"{render(report)}\n\n{_written(paths)}\n{closing}"


def _written(paths: Sequence[Path]) -> str:
    """One line a file; of files that differ only by a number, one line for all."""
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kinds.setdefault(re.sub(r"^object_\d+", "object_*", path.name), []).append(path)
    rows = []
    for kind, members in kinds.items():
        size = _size(sum(path.stat().st_size for path in members))
        rows.append((members[0].name, size, "") if len(members) == 1 else (kind, size, f"  {len(members)} files"))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{width}}  {size:>9}{count}" for name, size, count in rows]
    return "\n".join([f"written to {paths[0].parent}", *lines])


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{-(-size // 2**10)} KiB"
