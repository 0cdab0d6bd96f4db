"""Sets of methods that answer one question: the ablation of the three modules, and sweeps of one setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.evaluation.measuring.methods import OFF, Method

MODULES = {
    "SS": ("step_caching",),
    "SLaT": ("adaptive_caching", "token_carving"),
    "Mesh": ("token_aggregation",),
}
"""The three modules of Fast-SAM3D, by the name its ablation table has for them, as config groups."""
NO_MODULE = "none"
ABLATED = "paper"


def ablation_methods() -> list[Method]:
    """ "off", and the preset `paper` with each of the eight choices among its three modules.

    The row "none" is the exact tier alone: what the modules save is to be compared with it.
    """
    methods = [Method(OFF, OFF)]
    for chosen in sorted(product((True, False), repeat=len(MODULES)), key=sum):
        names = [name for name, on in zip(MODULES, chosen, strict=True) if on]
        left_out = [group for name in MODULES if name not in names for group in MODULES[name]]
        overrides = {f"{group}.enabled": False for group in left_out}
        methods.append(Method("+".join(names) or NO_MODULE, ABLATED, overrides))
    return methods


@dataclass(frozen=True)
class Sweep:
    """One setting taken through its range.

    Attributes:
        label: of the axis.
        points: value drawn on the axis -> changed settings.
        presets: those on which it is varied; each gives a curve.
        cliff: value from which on a publication reports a breakdown, or None.
    """

    label: str
    points: Mapping[float, Mapping[str, Any]]
    presets: tuple[str, ...]
    cliff: float | None = None


def _values(key: str, values: Sequence[float]) -> dict[float, dict[str, Any]]:
    return {value: {key: value} for value in values}


def _spectral(low: float) -> dict[str, Any]:
    # The distance between the thresholds is that of the preset.
    return {"token_aggregation.threshold_low": low, "token_aggregation.threshold_high": round(low + 0.15, 2)}


RELEASED = {
    "step_caching": "released_step_caching",
    "adaptive_caching": "released_latent_caching",
    "token_carving": "released_latent_caching",
    "token_aggregation": "released_aggregation",
}
"""The same settings in the groups of Fast-SAM3D as it was released."""

SWEEPS = {
    "stride": Sweep(
        "stride of step caching (first stage)",
        _values("step_caching.stride", (2, 3, 4, 5, 6)),
        ("paper_release", "paper"),
        cliff=4,
    ),
    "threshold": Sweep(
        "threshold of adaptive caching (second stage)",
        _values("adaptive_caching.threshold", (0.1, 0.25, 0.5, 1.0, 1.5, 3.0)),
        ("paper_release", "paper"),
    ),
    "carving": Sweep(
        "carved share of the tokens",
        _values("token_carving.carved_fraction", (0.0, 0.3, 0.5, 0.7, 0.9)),
        ("paper_release", "paper"),
    ),
    "beta": Sweep(
        "β: share of the linear forecast in the layout",
        _values("step_caching.momentum_beta", (0.0, 0.25, 0.5, 0.7, 0.9, 1.0)),
        ("paper_release", "paper"),
    ),
    "hfer": Sweep(
        "lower HFER threshold (the upper: 0.15 more)",
        {low: _spectral(low) for low in (0.15, 0.3, 0.45, 0.6)},
        ("paper_release", "paper"),
    ),
}


def sweep_methods(name: str, presets: Sequence[str] = ()) -> list[Method]:
    """ "off", and every preset of the sweep (or of `presets`) with every value, named `preset@value`.

    Raises:
        UserError: an unknown sweep.
    """
    from fastsam3d.basics.config_files import preset_names

    if name not in SWEEPS:
        raise UserError(f"bench: sweep={name} is unknown: use one of {', '.join(SWEEPS)}")
    sweep = SWEEPS[name]
    chosen = list(presets) or [preset for preset in sweep.presets if preset in preset_names()]
    methods = [Method(OFF, OFF)]
    for preset in chosen:
        settings = Method(preset, preset).settings()
        for value, overrides in sweep.points.items():
            own = _for_preset(overrides, settings)
            if own is not None:
                methods.append(Method(point_name(preset, value), preset, own))
    if len(methods) == 1:
        raise UserError(f"bench: sweep={name} varies nothing that {', '.join(chosen)} switch on: give presets=[NAME]")
    return methods


def _for_preset(overrides: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Overrides of the groups that a preset has on; None where it has none of them on."""
    translated = {}
    for key, value in overrides.items():
        group, _, field = key.partition(".")
        on = [name for name in (group, RELEASED[group]) if settings.get(name, {}).get("enabled")]
        if not on or field not in settings[on[0]]:
            return None
        translated[f"{on[0]}.{field}"] = value
    return translated


def point_name(preset: str, value: float) -> str:
    """Name of the row of a sweep."""
    return f"{preset}@{value:g}"


def point_of(name: str) -> tuple[str, float] | None:
    """Preset and value of a row of a sweep; None for other rows."""
    preset, at, value = name.rpartition("@")
    try:
        return (preset, float(value)) if at else None
    except ValueError:
        return None
