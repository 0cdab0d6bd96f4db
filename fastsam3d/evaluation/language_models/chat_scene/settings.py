"""Settings of the pruning, from a preset, changed values as text, and stored maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.basics.options import boolean
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.chat_scene.options import EvaluationOptions
from fastsam3d.mllm.budgets import ADAPTIVE
from fastsam3d.mllm.capabilities import SCORER
from fastsam3d.mllm.family import MllmFamily
from fastsam3d.mllm.predictor.stored_maps import StoredMaps
from fastsam3d.mllm.registry import REGISTRY

FAMILY = MllmFamily.name
PRUNING = "pruning"
BUDGETS = {"keep": "fixed", "share": "share", **{number: rule for rule, number in ADAPTIVE.items()}}
"""The budget that uses each number. A caller who gives the number chooses this budget too."""


def settings_of(preset: str, changes: Mapping[str, str], maps: StoredMaps | None = None) -> AccelerationConfig:
    """The settings of a preset with changes; stored maps take the place of its scorer.

    Args:
        preset: its name, or a YAML file.
        changes: values as text, by key. A key is `group.name`; for a setting of `pruning` the name alone is enough.
            `keep`, `share`, `alpha` and `times` also choose the budget that uses them.
        maps: stored maps that rank the objects; None: the scorer of the preset ranks them.

    Raises:
        UserError: an unknown preset or key, an impossible value, two numbers of different budgets, or changes or maps
            for a preset that prunes nothing.
    """
    overrides = {_full(key): text for key, text in changes.items()}
    given = [name for name in BUDGETS if f"{PRUNING}.{name}" in overrides]
    if given and f"{PRUNING}.budget" not in overrides:
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} belong to different budgets: give one of them, or give budget= too")
        overrides[f"{PRUNING}.budget"] = BUDGETS[given[0]]
    config = load_preset(preset, {key: _value(key, text) for key, text in overrides.items()}, FAMILY)
    if (changes or maps is not None) and not config[PRUNING].enabled:
        what = "maps" if maps is not None else next(iter(changes))
        raise UserError(
            f"{what}= has no effect with preset={preset}, which prunes nothing: give another preset, such as gap_sap_90"
        )
    return config if maps is None else _with_maps(config, maps)


def _with_maps(config: AccelerationConfig, maps: StoredMaps) -> AccelerationConfig:
    (scorer,) = (t.name for t in REGISTRY.values() if t.kind == SCORER and config[t.name].enabled)
    if scorer == "released":
        return load_preset(config, {"released.scores": "external"}, FAMILY)
    external = {"enabled": True, "scale": maps.kind}
    return load_preset(config, {f"{scorer}.enabled": False, "external": external}, FAMILY)


def _full(key: str) -> str:
    """The key with its group."""
    names = [field.name for field in dataclasses.fields(REGISTRY[PRUNING].config)]
    if "." in key:
        return key
    if key not in names:
        known = [*(field.name for field in dataclasses.fields(EvaluationOptions)), *names]
        raise UserError(f"unknown key {key!r}. {suggestion(key, known, len(known))}")
    return f"{PRUNING}.{key}"


def _value(key: str, text: str) -> Any:
    """The value that a text means; unknown keys and values out of range are refused by the settings themselves."""
    group, _, name = key.partition(".")
    fields = dataclasses.fields(REGISTRY[group].config) if group in REGISTRY else ()
    default = next((field.default for field in fields if field.name == name), "")
    if isinstance(default, str):
        return text
    try:
        if isinstance(default, bool):
            return boolean(text)
        return float(text)
    except ValueError:
        return text
