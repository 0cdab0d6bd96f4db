"""The few settings of acceleration on the page: reads their values from a preset, and makes settings of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fastsam3d.acceleration.presets import AccelerationConfig, load_preset, preset_info
from fastsam3d.basics.config_files import preset_names
from fastsam3d.errors import UserError

ORDER = ("balanced", "accurate", "fast", "exact", "paper", "balanced_12", "off")
"""Presets in the page's order, with their words; the first one is chosen at the start."""
IN_WORDS = {
    "balanced": "Recommended: 3.7× less work",
    "accurate": "Careful: 2.3× less work",
    "fast": "Fastest: 5.2× less work, look at it",
    "exact": "Same result: 1.3× faster",
    "paper": "As published: 3.8× faster",
    "balanced_12": "For runs of 12 steps",
    "off": "Reference: no acceleration",
}
"""Names of the presets on the page. The figures are those of the tables in README.md: operations of the networks for
`balanced`, `accurate` and `fast`, seconds for `exact` and `paper`; all on the small model."""
MAXIMUM_STRIDE, MAXIMUM_ERROR = 3, 2.0

LABELS = {
    "stride": ("Structure: compute every n-th step", "1 computes all. Higher is faster, and the pose changes first."),
    "error": ("Latents: error before recomputing", "0 computes all. Higher is faster and rougher."),
    "carving": ("Skip voxels that stopped changing", "Faster if much of the object stops changing early."),
    "merging": ("Merge voxels of plain objects", "Faster for smooth shapes; fine detail may be lost."),
}
"""Label of each knob, and its effect on speed and quality."""


@dataclass(frozen=True)
class Knobs:
    """Values of the page's knobs.

    Attributes:
        stride: steps of the structure stage from one computed to the next; 1 computes all.
        error: estimated relative error at which the latent network runs again; 0 computes all.
        carving: skip voxels that stopped changing.
        merging: merge voxels of plain objects before the latent stage.
    """

    stride: int
    error: float
    carving: bool
    merging: bool


def presets() -> dict[str, str]:
    """Returns the names and descriptions of the presets for users, in the page's order.

    A description begins with the name, as the command line wants it.
    """
    known = {name: preset_info(name) for name in preset_names()}
    chosen = [name for name in known if known[name].kind == "preset"]
    chosen.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    return {name: f"`{name}`: {known[name].description}" for name in chosen}


def choices() -> list[tuple[str, str]]:
    """Returns (words, name) of the presets, in the page's order. A preset without words has its name in their place."""
    return [(IN_WORDS.get(name, name), name) for name in presets()]


def knobs_of(preset: Any) -> Knobs:
    """Reads the knobs' values from a preset.

    Raises:
        UserError: there is no such preset.
    """
    if preset not in presets():
        raise UserError("There is no such preset.")
    config = load_preset(preset)
    steps, latent = config["step_caching"], config["adaptive_caching"]
    return Knobs(
        int(steps.stride) if steps.enabled else 1,
        float(latent.threshold) if latent.enabled else 0.0,
        bool(config["token_carving"].enabled),
        bool(config["token_aggregation"].enabled),
    )


def configure(preset: Any, stride: Any, error: Any, carving: Any, merging: Any) -> AccelerationConfig:
    """Applies the turned knobs to a preset. With none turned the result is the preset itself, name included.

    Raises:
        UserError: the preset is unknown, or a value is not possible.
    """
    before = knobs_of(preset)
    after = _checked(stride, error, carving, merging)
    own = load_preset(preset)
    changes: dict[str, dict[str, Any]] = {}
    if after.stride != before.stride:
        changes["step_caching"] = {"enabled": after.stride > 1} | ({"stride": after.stride} if after.stride > 1 else {})
        if after.stride > 1 and own["multistep"].enabled:
            changes["multistep"] = {"enabled": False}  # both decide when the network runs
    if abs(after.error - before.error) > 1e-6:
        on = after.error > 0
        changes["adaptive_caching"] = {"enabled": on} | ({"threshold": after.error} if on else {})
        if on and own["latent_multistep"].enabled:
            changes["latent_multistep"] = {"enabled": False}
    if after.carving != before.carving:
        changes["token_carving"] = {"enabled": after.carving}
    if after.merging != before.merging:
        changes["token_aggregation"] = {"enabled": after.merging}
    config = load_preset(preset, changes)
    return dataclasses.replace(config, name=f"{preset}_changed") if changes else config


def _checked(stride: Any, error: Any, carving: Any, merging: Any) -> Knobs:
    try:
        steps, threshold = int(stride), float(error)
    except (TypeError, ValueError, OverflowError):
        raise UserError("The settings must be numbers.") from None
    # Written so that NaN is refused, too.
    if not (1 <= steps <= MAXIMUM_STRIDE and 0 <= threshold <= MAXIMUM_ERROR):
        raise UserError(f"The stride must be 1 to {MAXIMUM_STRIDE} and the error 0 to {MAXIMUM_ERROR:g}.")
    return Knobs(steps, threshold, bool(carving), bool(merging))
