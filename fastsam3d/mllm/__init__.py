"""Acceleration of language models that read 3D scenes: the family `mllm`.

    with fastsam3d.accelerate(model, "fastv_90") as acceleration:
        model.generate(**inputs, visual=fastsam3d.mllm.VisualSpan(start, groups, group_size))
        print(acceleration.report())

An extension needs these names: `Technique`, `TechniqueConfig`, `setting`, `Scorer`, `ScoringBatch` and `register` for a
scorer; `Host` and `register_host` for a kind of model. `load_mllm` loads published models; the folder `benchmarks`
scores their answers. Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastsam3d.acceleration.registry import Technique
    from fastsam3d.acceleration.settings import TechniqueConfig, setting
    from fastsam3d.mllm.attention_rows import RowSet
    from fastsam3d.mllm.host import Host
    from fastsam3d.mllm.hosts import register_host
    from fastsam3d.mllm.loading import load_mllm
    from fastsam3d.mllm.maps import extract_maps
    from fastsam3d.mllm.predictor.budget_search import search_budget
    from fastsam3d.mllm.predictor.files import load_predictor
    from fastsam3d.mllm.predictor.released import load_released_predictor
    from fastsam3d.mllm.registry import register
    from fastsam3d.mllm.spans import Placeholder, VisualSpan
    from fastsam3d.mllm.vocabulary import Prompts, Scorer, ScoringBatch

__all__ = [
    "Host",
    "Placeholder",
    "Prompts",
    "RowSet",
    "Scorer",
    "ScoringBatch",
    "Technique",
    "TechniqueConfig",
    "VisualSpan",
    "extract_maps",
    "load_mllm",
    "load_predictor",
    "load_released_predictor",
    "register",
    "register_host",
    "search_budget",
    "setting",
]

_MODULES = {
    "Host": "fastsam3d.mllm.host",
    "Placeholder": "fastsam3d.mllm.spans",
    "Prompts": "fastsam3d.mllm.vocabulary",
    "RowSet": "fastsam3d.mllm.attention_rows",
    "Scorer": "fastsam3d.mllm.vocabulary",
    "ScoringBatch": "fastsam3d.mllm.vocabulary",
    "Technique": "fastsam3d.acceleration.registry",
    "TechniqueConfig": "fastsam3d.acceleration.settings",
    "VisualSpan": "fastsam3d.mllm.spans",
    "extract_maps": "fastsam3d.mllm.maps",
    "load_mllm": "fastsam3d.mllm.loading",
    "load_predictor": "fastsam3d.mllm.predictor.files",
    "load_released_predictor": "fastsam3d.mllm.predictor.released",
    "register": "fastsam3d.mllm.registry",
    "register_host": "fastsam3d.mllm.hosts",
    "search_budget": "fastsam3d.mllm.predictor.budget_search",
    "setting": "fastsam3d.acceleration.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
