"""Evaluations of a network by the guidance of the sampler itself, as TRELLIS, TRELLIS.2 and Pixal3D have it.

The sampler combines the two branches; this module looks on. The sampler is given a `RecordingNetwork` in the place of
its network, which notes what the real network says. So guidance formula, rescale, precision and the number of passes
stay those of the pipeline, whatever its version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fastsam3d.diffusion.host import Runner
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, EvaluationState, Forward
from fastsam3d.diffusion.vocabulary import GuidedVelocity


class RecordingNetwork:
    """Stands in for a network in one evaluation: names the branch, runs the network and notes its outputs.

    Args:
        network: the real one.
        state: told which branch runs, and on which condition.
        conditions: of each branch as the pipeline gave it; the identity of these is known to what keeps values.
        handed: of each branch as the sampler hands it to the network, by which the branch is recognised.
        conditional_only: the network does not run for the unconditional branch, whose result is of no use then.

    Attributes:
        outputs: what the network said, by branch.
        skipped: the unconditional branch was asked for and did not run.
    """

    def __init__(
        self,
        network: Any,
        state: EvaluationState,
        conditions: Mapping[str, Any],
        handed: Mapping[str, Any],
        conditional_only: bool,
    ) -> None:
        self._network, self._state = network, state
        self._conditions, self._handed = conditions, handed
        self._conditional_only = conditional_only
        self.outputs: dict[str, Any] = {}
        self.skipped = False

    def __getattr__(self, name: str) -> Any:
        # Samplers may ask a network for its type, device or number of channels.
        return getattr(self._network, name)

    def __call__(self, x: Any, t: Any, condition: Any, *args: Any, **kwargs: Any) -> Any:
        branch = self._branch(condition)
        if branch == UNCONDITIONAL and self._conditional_only:
            self.skipped = True
            return x  # any value of the right shape: what the sampler makes of it is thrown away
        self._state.branch, self._state.condition = branch, self._conditions[branch]
        self.outputs[branch] = self._network(x, t, condition, *args, **kwargs)
        return self.outputs[branch]

    def _branch(self, condition: Any) -> str:
        if condition is self._handed[UNCONDITIONAL]:
            return UNCONDITIONAL
        if condition is self._handed[CONDITIONAL] or not self.outputs:
            return CONDITIONAL
        return UNCONDITIONAL  # a sampler that hands on copies has run the conditional branch first


def evaluator(
    original: Forward, runner: Runner, name: str, call: tuple[Any, Any, float, Any], kwargs: dict[str, Any]
) -> Callable[..., GuidedVelocity]:
    """The `fastsam3d.diffusion.vocabulary.Evaluate` of one step.

    Args:
        original: the sampler's guided evaluation, `(model, x, t, cond, neg_cond=..., ...) -> velocity`.
        runner: of the stage.
        name: modality under which policies see the state.
        call: `(model, x, t, cond)` of the step.
        kwargs: the rest of the call; has `neg_cond`.
    """
    state = runner.state
    model, given, t, cond = call
    conditions = {CONDITIONAL: cond, UNCONDITIONAL: kwargs["neg_cond"]}
    handed = {branch: _for_each(condition, int(given.shape[0])) for branch, condition in conditions.items()}
    rest = {**kwargs, "neg_cond": handed[UNCONDITIONAL]}

    def evaluate(
        x: dict[str, Tensor], tokens: Tensor | None = None, *, conditional_only: bool = False
    ) -> GuidedVelocity:
        own = given if x[name] is as_tensor(given) else with_values(given, x[name])
        network = RecordingNetwork(model, state, conditions, handed, conditional_only)
        state.tokens, state.time = tokens, 1.0 - float(t)
        state.evaluation += 1
        try:
            velocity = original(network, own, t, handed[CONDITIONAL], **rest)
        finally:
            state.end_evaluation()
        outputs = network.outputs
        # Guidance may rest on one branch alone, whichever it is.
        c = -as_tensor(outputs[CONDITIONAL if CONDITIONAL in outputs else UNCONDITIONAL])
        if network.skipped:
            return GuidedVelocity({name: c.float()})
        guided = -as_tensor(velocity)
        delta = {name: guided.float() - c.float()} if len(outputs) > 1 else None
        return GuidedVelocity({name: c.float()}, delta, guided={name: guided})

    return evaluate


def times_of(steps: int, rescale: float) -> Sequence[float]:
    """The sampler's times, from noise (1) to data (0), `steps + 1` (docs/facts.md, section S13)."""
    uniform = np.linspace(1, 0, steps + 1)
    return list(rescale * uniform / (1 + (rescale - 1) * uniform))


def as_tensor(x: Any) -> Tensor:
    """State or velocity as a tensor; that of a sparse tensor is `[N, C]`."""
    return x if isinstance(x, Tensor) else x.feats


def with_values(x: Any, values: Tensor) -> Any:
    """A state or velocity like `x` that holds `values`."""
    return values if isinstance(x, Tensor) else x.replace(values)


def _for_each(condition: Any, objects: int) -> Any:
    """A condition, repeated for every object of a batch as the sampler does it.

    The sampler then hands on the very object that it was given, by which the branches are told apart.
    """
    if not isinstance(condition, Tensor) or len(condition) != 1 or objects == 1:
        return condition
    return condition.repeat(objects, *([1] * (condition.dim() - 1)))


def is_zero(condition: Any) -> bool:
    """Whether a condition holds zeros only: a tensor, a sparse tensor, or a mapping of them; False of anything else."""
    if isinstance(condition, Mapping):
        return len(condition) > 0 and all(is_zero(value) for value in condition.values())
    values = getattr(condition, "feats", condition)
    return isinstance(values, Tensor) and not bool(values.any())
