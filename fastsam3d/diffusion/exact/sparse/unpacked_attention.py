"""Exact saving: self-attention of one object by the plain call instead of that for packed objects.

A call for objects of different lengths moves their lengths to the device every time, for which the host waits.
"""

from __future__ import annotations

from fastsam3d.diffusion.exact.maskless_attention import unmasked
from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, register_saving


def _attach(target: PipelineTarget) -> None:
    for site in target.host.packed_attentions():
        target.patches.replace(site.attention, "forward", unmasked(site))


register_saving(
    ExactSaving(
        "unpacked_attention",
        "Plain attention for one object instead of the call for packed objects. Faster where the host waits; no cost.",
        Nesting.MODULES,
        sites=("packed_attentions",),
        attach=_attach,
    )
)
