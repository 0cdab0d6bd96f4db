"""Calibrates MagCache for a pipeline: measures how the change that its blocks make grows from step to step.

    ratios = magcache_ratios(pipeline, lambda: pipeline.run(image, mask, seed=0))
    fastsam3d.accelerate(pipeline, "magcache", magcache=ratios)

A few objects are enough: run them all in the function that is given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastsam3d.acceleration.family import find_host
from fastsam3d.acceleration.handle import acceleration_of
from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.partial.block_stack import BlockStack
from fastsam3d.diffusion.report import StageReport
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, EvaluationState
from fastsam3d.diffusion.stage_runner import StageRunner
from fastsam3d.diffusion.techniques.rivals.magcache import CURVES
from fastsam3d.diffusion.vocabulary import STAGES
from fastsam3d.errors import UserError

Sums = dict[tuple[str, int], list[float]]


class _Recorder:
    """Block policy that skips nothing and notes the ratio of each change to the one before, branch by branch."""

    probe = 0

    def __init__(self, ratios: Sums) -> None:
        self.ratios = ratios
        self._previous: dict[tuple[str, int], dict[str, Tensor]] = {}

    def reuse(self, key: tuple[str, int], step: int, probe: dict[str, Tensor]) -> bool:
        return False

    def computed(self, key: tuple[str, int], step: int, change: dict[str, Tensor]) -> None:
        sizes = {name: value.float().norm(dim=-1) for name, value in change.items()}
        before = self._previous.get(key)
        if before is not None:
            shares = [(sizes[name] / before[name].clamp_min(1e-12)).flatten() for name in sizes]
            count = sum(share.numel() for share in shares)
            self.ratios[key[0], step].append(float(sum(share.sum() for share in shares)) / count)
        self._previous[key] = sizes


def magcache_ratios(pipeline: Any, run: Callable[[], Any]) -> dict[str, tuple[float, ...]]:
    """Mean magnitude ratio of every step, as settings of `magcache`.

    Args:
        pipeline: not accelerated; it is left as it was.
        run: reconstructs the calibration objects, one or more, with that pipeline.

    Returns:
        The four curves by the names of their settings; a curve is as long as its branch runs, and begins with 1.

    Raises:
        UserError: no host knows the pipeline, or it is accelerated.
    """
    host, patches = find_host(pipeline), Patches()
    if (acceleration := acceleration_of(host)) is not None:
        raise UserError(
            f"the pipeline is accelerated ({acceleration.config.name}), and the ratios are those of all its steps: "
            "remove the acceleration first."
        )
    measured: dict[str, Sums] = {stage: defaultdict(list) for stage in STAGES}
    try:
        for stage, kind in host.stages.items():
            _attach(host, patches, stage, measured[kind])
        run()
    finally:
        patches.restore()
    result = {}
    for stage, names in CURVES.items():
        for branch, name in zip((CONDITIONAL, UNCONDITIONAL), names, strict=True):
            steps = sorted(step for kind, step in measured[stage] if kind == branch)
            means = [sum(v) / len(v) for v in (measured[stage][branch, step] for step in steps)]
            result[name] = (1.0, *(round(mean, 4) for mean in means))
    return result


def _attach(host: Any, patches: Patches, stage: str, ratios: Sums) -> None:
    state = EvaluationState()
    runner = StageRunner(
        state, StageReport(), lambda _: None, lambda _: None, block_policy=lambda _: _Recorder(ratios)
    )
    stack = BlockStack(
        host.block_stack(stage),
        state,
        lambda: runner.block_policy,
        lambda: runner.step_index,
        host.block_states(stage),
    )
    stack.attach(patches)
    runner.keepers.append(stack)
    host.attach_sampler(patches, stage, runner)
