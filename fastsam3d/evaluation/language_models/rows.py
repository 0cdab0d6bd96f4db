"""The rows of the table: presets, and a few variants of them for comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.basics.config_files import preset_names
from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.evaluation.measuring.methods import OFF, Method
from fastsam3d.mllm.mini.budget_search import predicted_logits
from fastsam3d.mllm.mini.model import SceneLanguageModel
from fastsam3d.mllm.predictor.budget_search import search_budget
from fastsam3d.mllm.predictor.files import load_predictor

ALL, FAMILY = "all", "mllm"
SMALLER = 0.05
"""Share of the objects in the rows at about 95 %."""
NOT_COMPARED = ("released",)
"""Presets that are no row: the released masking saves nothing, and tests compare it."""


def rows_of(names: Sequence[str]) -> list[Method]:
    """Makes the rows that are named, "off" first.

    Args:
        names: presets, preset files, or `ALL`.

    Raises:
        UserError: a name is unknown.
    """
    if ALL in names:
        known = [name for name in preset_names("mllm") if name not in (OFF, *NOT_COMPARED)]
        rows = [*(_method(name, name) for name in known), *_of_questions()]
    else:
        rows = [_method(name, name) for name in names if name != OFF]
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


def predictors_of(folder: str | None) -> dict[str, Path]:
    """Finds files of more predictors, by the set of prompt rows that each was trained on.

    Args:
        folder: of files predictor_ROWS.safetensors; None: no predictors.

    Raises:
        UserError: the folder holds none.
    """
    if folder is None:
        return {}
    files = sorted(user_path(folder).glob("predictor_*.safetensors"))
    if not files:
        raise UserError(f"predictors: {folder} holds no predictor_*.safetensors: give a folder with such files")
    return {path.stem.removeprefix("predictor_"): path for path in files}


def adaptive_rows(model: SceneLanguageModel, predictors: Mapping[str, Path]) -> list[Method]:
    """Makes the rows whose adaptive budget is searched.

    Args:
        model: the small model, with its predictor.
        predictors: more predictors of this model, by the set of prompt rows that each was trained on.
    """
    logits, fewer = predicted_logits(model), 100 * (1 - SMALLER)
    alpha, times = (search_budget(logits, None, fewer, rule=rule).value for rule in ("mass", "threshold"))
    rows = [
        _method("gap_sap_95", "gap_sap_90", {"pruning": {"alpha": alpha}}),
        _method("gap_threshold_95", "gap_threshold_90", {"pruning": {"times": times}}),
    ]
    for name, path in predictors.items():
        logits = predicted_logits(model, predictor=load_predictor(path))
        settings: dict[str, Any] = {"gap": {"predictor": str(path)}}
        rows.append(_method(f"gap_fixed_90 ({name})", "gap_fixed_90", settings))
        settings = settings | {"pruning": {"alpha": search_budget(logits, None, 90.0).value}}
        rows.append(_method(f"gap_sap_90 ({name})", "gap_sap_90", settings))
    return rows


def _method(name: str, preset: str, overrides: dict[str, Any] | None = None) -> Method:
    return Method(name, preset, overrides or {}, family=FAMILY)
