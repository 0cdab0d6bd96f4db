"""Exact saving: a decoder that is asked for coordinates alone does not compute the features of its last level.

Between the stages of a cascade, TRELLIS.2 decodes the coarse shape four levels up and keeps the coordinates. They
follow from the subdivisions that the last block predicts before it convolves. Its convolutions are the widest there.
"""

from __future__ import annotations

from typing import Any

from fastsam3d.acceleration.patching import temporarily
from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, register_saving
from fastsam3d.diffusion.sites import CoordinatesSite, Forward


def without_features(site: CoordinatesSite) -> Any:
    """Wraps `upsample(x, upsample_times)`: its last block gives coordinates with features of no meaning."""

    def make(original: Forward) -> Forward:
        def upsample(x: Any, upsample_times: int, *args: Any, **kwargs: Any) -> Any:
            block = site.last(upsample_times)
            if block is None:
                return original(x, upsample_times, *args, **kwargs)
            with temporarily(block, forward=site.subdivided(block)):
                return original(x, upsample_times, *args, **kwargs)

        return upsample

    return make


def _attach(target: PipelineTarget) -> None:
    for site in target.host.coordinate_decoders():
        target.patches.replace(site.decoder, "upsample", without_features(site))


register_saving(
    ExactSaving(
        "bare_coordinates",
        "Coordinates between the stages of a cascade without the features of their last level. Faster; less memory.",
        Nesting.MODULES,
        sites=("coordinate_decoders",),
        attach=_attach,
    )
)
