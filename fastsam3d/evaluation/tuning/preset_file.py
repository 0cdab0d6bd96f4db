"""A tuned setting as a preset file, with a header that says which run chose it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from fastsam3d.basics.record_log import Record
from fastsam3d.evaluation.tuning.options import TuneOptions
from fastsam3d.evaluation.tuning.search import Score, Settings


def preset_text(
    name: str, settings: Settings, score: Score, options: TuneOptions, command: str, identity: Record
) -> str:
    """The YAML of a preset: what `exact` has, and every technique that is on with all its settings."""
    from omegaconf import OmegaConf

    from fastsam3d.acceleration.presets import ABOUT, load_preset

    values = load_preset("exact", settings).to_dict()
    about = {
        "name": name,
        "kind": "preset",
        "description": options.description
        or f"Tuned: fidelity at least {options.target_fidelity:g}, F1@0.05 at most {options.target_f1_drop:g} lower.",
    }
    groups = {group: content for group, content in values.items() if group not in ABOUT and _is_on(content)}
    details = score.details or {}
    weights = f"the model {options.model} with weights {identity['weights']}"
    guidance = ", ".join("the model's own" if g is None else f"{g:g}" for g in options.guidance)
    lines = [
        f"Chosen by: {command}",
        f"on {options.objects} calibration objects (seeds that no benchmark uses), {weights}, guidance {guidance}, "
        f"{identity['device_name']}.",
        f"There, at the worst guidance: fidelity {details['fidelity']:.3f} (at least {options.target_fidelity:g}), "
        f"F1@0.05 {-details['f1_drop']:+.2f} (at most -{options.target_f1_drop:g}), 3D-IoU {-details['iou_drop']:+.4f} "
        f"(at most -{options.target_iou_drop:g}), {details['speedup']:.2f} times fewer priced operations than exact.",
        "These figures chose the settings and flatter them: report others, from python -m fastsam3d bench.",
    ]
    comment = "\n".join(textwrap.fill(line, 116, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
                        for line in lines)  # fmt: skip
    return f"{comment}\n{OmegaConf.to_yaml(OmegaConf.create(about))}{OmegaConf.to_yaml(OmegaConf.create(groups))}"


def _is_on(content: Mapping[str, Any]) -> bool:
    return bool(content.get("enabled", True))
