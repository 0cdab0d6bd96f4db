"""The rows of the table: presets, and settings that answer a question of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsam3d.basics.config_files import preset_names
from fastsam3d.errors import UserError
from fastsam3d.evaluation.measuring.methods import OFF, Method

ALL, FAMILY = "all", "mllm"
SMALLER = 0.05
"""Share of the objects in the rows at about 95 %."""
NOT_COMPARED = ("released",)
"""Presets that save nothing: the published masking is a matter for tests, not for this table."""


def rows_of(names: Sequence[str], predictors: str | None) -> list[Method]:
    """The rows of names, "off" first.

    Args:
        names: presets, preset files, or `ALL`.
        predictors: folder of further predictors, each of which becomes two rows; None without.

    Raises:
        UserError: a name is unknown, or the folder holds no predictor.
    """
    if ALL in names:
        known = [name for name in preset_names("mllm") if name not in (OFF, *NOT_COMPARED)]
        rows = [*(_method(name, name) for name in known), *_of_questions()]
    else:
        rows = [_method(name, name) for name in names if name != OFF]
    rows += _of_predictors(predictors)
    for row in rows:
        row.settings()
    return [_method(OFF, OFF), *rows]


def _of_questions() -> list[Method]:
    """Rows that are no presets: fewer objects, and controls beside the predictor at the same depth and share."""
    smaller = {"budget": "share", "share": SMALLER}
    return [
        _method("gap_fixed_95", "gap_fixed_90", {"pruning": smaller}),
        _method("oracle_95", "oracle_90", {"pruning": smaller}),
        _method("oracle_text_90", "oracle_90", {"oracle": {"rows": "text"}}),
        _method("random_80", "random_90", {"pruning": {"share": 0.2}}),
    ]


def _of_predictors(folder: str | None) -> list[Method]:
    if folder is None:
        return []
    files = sorted(Path(folder).glob("predictor_*.safetensors"))
    if not files:
        raise UserError(f"predictors: {folder} holds no predictor_*.safetensors")
    rows = []
    for path in files:
        name, settings = path.stem.removeprefix("predictor_"), {"gap": {"predictor": str(path)}}
        rows.append(_method(f"gap_fixed_90 ({name})", "gap_fixed_90", settings))
    return rows


def _method(name: str, preset: str, overrides: dict[str, Any] | None = None) -> Method:
    return Method(name, preset, overrides or {}, family=FAMILY)


def adaptive(name: str, alpha: float) -> Method:
    """A row with the adaptive budget at some mass."""
    changes: dict[str, Any] = {"pruning": {"alpha": alpha}}
    return _method(name, "gap_sap_90", changes)
