"""Exact saving: runs both guidance branches in one pass.

Small networks wait for weights more than they compute. The saving rests where a technique works inside the network or
decides how evaluations run: these tell the branches apart.
"""

from __future__ import annotations

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, StageTarget, register_saving


def _attach(target: StageTarget) -> None:
    target.runner.state.joint = not target.inside and not target.policies


register_saving(
    ExactSaving(
        "joint_branches",
        "Both guidance branches of the structure stage in one pass. Faster for small models; memory: activations "
        "twice. Needs zero_condition; rests where a technique works inside the network.",
        Nesting.EVALUATIONS,
        sites=(),
        attach_stage=_attach,
        requires=("zero_condition",),
    )
)
