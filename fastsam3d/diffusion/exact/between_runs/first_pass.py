"""Exact saving: the unconditional pass of the first step, which depends on the seed only, is kept between objects.

The first stage begins at noise that follows from the seed. A pass whose condition is zero sees neither the picture nor
the object. So with the same seed it gives the same velocity for every object.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastsam3d.diffusion.evaluations.whole import precision_of, shape_of
from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, StageTarget, register_saving
from fastsam3d.diffusion.sites import UNCONDITIONAL, EvaluationState, Forward, NetworkSite
from fastsam3d.modules.tensor_versions import place_and_version, version


@dataclass(frozen=True)
class _Kept:
    """What a pass saw, and what it gave."""

    inputs: tuple[Tensor, ...]
    key: Hashable
    weights: tuple[Any, ...]
    velocity: Tensor

    def serves(self, inputs: tuple[Tensor, ...], key: Hashable, weights: tuple[Any, ...]) -> bool:
        """Tells whether a pass with these inputs, modes and weights gives the kept velocity."""
        if (self.key, self.weights) != (key, weights):
            return False
        return all(torch.equal(own, other) for own, other in zip(self.inputs, inputs, strict=True))


class FirstPass:
    """Keeps the unconditional velocity of the first step of one network.

    Inputs are told apart by their values. On a GPU the comparison waits for the device once a run. A change of the
    weights is told as in `fastsam3d.modules.tensor_versions`.

    Args:
        site: the network.
        state: what the host evaluates at the moment.
        spared: called whenever the kept velocity stands in for a pass.

    Attributes:
        count: passes that did not run, since the last `reset`.
    """

    def __init__(self, site: NetworkSite, state: EvaluationState, spared: Callable[[], None]) -> None:
        self._site, self._state, self._spared = site, state, spared
        self._kept: _Kept | None = None
        self.count = 0

    def reset(self) -> None:
        """Sets the count to zero."""
        self.count = 0

    def details(self) -> dict[str, Any]:
        """What the report tells."""
        return {"kept_passes": self.count}

    def release(self) -> None:
        """Frees the kept velocity."""
        self._kept = None

    def wrap(self, original: Forward) -> Forward:
        """The network's `forward`, which gives the kept velocity where it is the same."""

        def forward(x: Any, t: Any, condition: Any, *args: Any, **kwargs: Any) -> Any:
            if args or kwargs or not isinstance(x, Tensor) or not isinstance(t, Tensor) or not self._is_first():
                return original(x, t, condition, *args, **kwargs)
            inputs, weights = (x, t), self._weights()
            key = shape_of(x), shape_of(t), _shapes(condition), precision_of(x), torch.is_inference_mode_enabled()
            if self._kept is not None and self._kept.serves(inputs, key, weights):
                self.count += 1
                self._spared()
                return self._kept.velocity.clone()
            velocity = original(x, t, condition)
            # Copies, because callers may write to what they gave and got.
            self._kept = _Kept((x.clone(), t.clone()), key, weights, velocity.clone())
            return velocity

        return forward

    def _is_first(self) -> bool:
        state = self._state
        is_whole = state.tokens is None and state.subset is None and not state.layout_only
        is_free = state.branch == UNCONDITIONAL and state.condition is not None and state.zero_condition
        return is_free and is_whole and len(state.times) > 0 and state.time == state.times[0]

    def _weights(self) -> tuple[Any, ...]:
        module = self._site.module
        tensors = (*module.parameters(), *module.buffers())
        return tuple(version(t) if self._site.weights_move else place_and_version(t) for t in tensors)


def _shapes(condition: Any) -> Hashable:
    """Shapes of a condition's parts."""
    if isinstance(condition, Mapping):
        return tuple((name, _shapes(part)) for name, part in condition.items())
    values = getattr(condition, "feats", condition)
    return shape_of(values) if isinstance(values, Tensor) else type(values).__name__


def _attach(target: StageTarget) -> None:
    if target.inside:
        return  # techniques inside the network learn from every pass
    pipeline = target.pipeline
    for site in target.host.seeded_networks(target.stage):
        first = FirstPass(site, target.runner.state, partial(pipeline.operations.kept_pass, target.stage))
        target.patches.replace(site.module, "forward", first.wrap)
        pipeline.at_removal.append(first.release)
        pipeline.resets.append(first.reset)
        pipeline.details[f"first_pass.{target.stage}"] = first.details


register_saving(
    ExactSaving(
        "first_pass",
        "Unconditional pass of the first step kept for objects with the same seed. Faster from the second object on; "
        "memory: two latents of the first stage. Rests where a technique works inside the network.",
        Nesting.EVALUATIONS,
        sites=("seeded_networks",),
        attach_stage=_attach,
    )
)
