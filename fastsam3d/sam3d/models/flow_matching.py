"""Flow matching: time grid, classifier-free guidance and the Euler sampler.

Time runs from 0 (noise) to 1 (data); the velocity is data minus noise (docs/facts.md, sections
S4.1 and S4.2). States are tensors, or dicts of tensors where a stage has several latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

State = TypeVar("State", Tensor, dict[str, Tensor])
Strength = float | Mapping[str, float]

TIME_SCALE = 1000.0
"""Networks see time, and step size, multiplied by this."""


def time_grid(steps: int, rescale: float) -> list[float]:
    """The `steps + 1` times of a run, `t_k = s / (1 + (rescale - 1)(1 - s))` with `s = k / steps`.

    `rescale` 1 gives equal steps; 3 makes steps short near noise and long near data. Raises ValueError for no steps.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    uniform = [k / steps for k in range(steps + 1)]
    return [s / (1 + (rescale - 1) * (1 - s)) for s in uniform]


def combine(function: Callable[..., Tensor], *states: Any) -> Any:
    """Applies `function` to tensors, or key by key to dicts of tensors with the same keys."""
    if isinstance(states[0], Mapping):
        return {name: function(*[state[name] for state in states]) for name in states[0]}
    return function(*states)


class ClassifierFreeGuidance(nn.Module):
    """Guided velocity `v = (1 + w) c - w u` inside an interval of times, `v = c` outside.

    Args:
        backbone: the velocity network; `cfg=True` asks for its unconditional pass.
        strength: `w`, one number or one per latent.
        interval: times, multiplied by 1000, between which (inclusive) guidance is on.
    """

    def __init__(self, backbone: nn.Module, strength: Strength, interval: tuple[float, float] = (0.0, 500.0)) -> None:
        super().__init__()
        self.backbone = backbone
        self.strength = strength
        self.interval = interval

    def strength_at(self, time: float) -> Strength:
        """Guidance strength at `time` (0..1); 0.0 outside the interval."""
        inside = self.interval[0] <= TIME_SCALE * time <= self.interval[1]
        return self.strength if inside else 0.0

    def is_guided(self, time: float) -> bool:
        """Tells whether the unconditional pass has any weight at `time`."""
        strength = self.strength_at(time)
        return any(w > 0 for w in strength.values()) if isinstance(strength, Mapping) else strength > 0

    def conditional(self, x: State, time: float | Tensor, condition: Tensor, *extra: Any, **kwargs: Any) -> State:
        """One evaluation of the network with the condition.

        `time`: 0..1, a number, or fp64 `[1]` on the device where it must not become a constant of the computation.
        """
        return self.backbone(x, _network_time(x, time), condition, *extra, **kwargs)

    def unconditional(self, x: State, time: float | Tensor, condition: Tensor, *extra: Any, **kwargs: Any) -> State:
        """One evaluation of the network with the condition replaced by zeros."""
        return self.backbone(x, _network_time(x, time), condition, *extra, cfg=True, **kwargs)

    def delta(self, conditional: Any, unconditional: Any, time: float) -> Any:
        """Term that guidance adds to the conditional velocity: `w (c - u)`, key by key."""
        strength = self.strength_at(time)
        if isinstance(strength, Mapping):
            return {k: strength.get(k, 0.0) * (c - unconditional[k]) for k, c in conditional.items()}
        return combine(lambda c, u: strength * (c - u), conditional, unconditional)

    def forward(self, x: State, time: float, condition: Tensor, *extra: Any, **kwargs: Any) -> State:
        conditional = self.conditional(x, time, condition, *extra, **kwargs)
        if not self.is_guided(time):
            return conditional
        unconditional = self.unconditional(x, time, condition, *extra, **kwargs)
        return combine(torch.add, conditional, self.delta(conditional, unconditional, time))


def _network_time(x: Any, time: float | Tensor) -> Tensor:
    first = next(iter(x.values())) if isinstance(x, Mapping) else x
    if isinstance(time, Tensor):
        return (TIME_SCALE * time).float().expand(first.shape[0])
    return torch.full((first.shape[0],), TIME_SCALE * time, dtype=torch.float32, device=first.device)


class FlowMatching(nn.Module):
    """Euler sampler of a guided velocity; `models["slat_generator"]`.

    Args:
        reverse_fn: the guided network.
        inference_steps: number of Euler steps.
        rescale_t: bend of the time grid, see `time_grid`.
    """

    def __init__(self, reverse_fn: ClassifierFreeGuidance, inference_steps: int = 25, rescale_t: float = 1.0) -> None:
        super().__init__()
        self.reverse_fn = reverse_fn
        self.inference_steps = inference_steps
        self.rescale_t = rescale_t

    def times(self) -> list[float]:
        """The times of a run, `inference_steps + 1` values from 0 to 1."""
        return time_grid(self.inference_steps, self.rescale_t)

    def evaluation_kwargs(self, x: State) -> dict[str, Any]:
        """Keyword arguments of every network evaluation beyond state, time and condition."""
        return {}

    def velocity(self, x: State, time: float, condition: Tensor, *extra: Any) -> State:
        """Guided velocity at `time`. Looked up on the instance at every step, so that it can be replaced."""
        return self.reverse_fn(x, time, condition, *extra, **self.evaluation_kwargs(x))

    def sample(
        self,
        noise: State,
        condition: Tensor,
        *extra: Any,
        progress: Callable[[int, int], None] | None = None,
    ) -> State:
        """Integrates from noise to data.

        Args:
            noise: state at time 0, fp32.
            condition: condition tokens `[B, L, C]`.
            extra: further positional arguments of the network (voxel coordinates of the second stage).
            progress: called with (steps done, steps) after each step.

        Returns:
            The state at time 1, same structure and shapes as `noise`, fp32.
        """
        times = self.times()
        x = noise
        for index in range(len(times) - 1):
            v = self.velocity(x, times[index], condition, *extra)
            step = times[index + 1] - times[index]
            x = combine(lambda a, b: a + step * b.float(), x, v)  # noqa: B023 - used before the next iteration
            if progress is not None:
                progress(index + 1, len(times) - 1)
        return x


class ShortCut(FlowMatching):
    """Sampler of the sparse-structure generator, which also embeds the step size `d`.

    `shortcut` false (the default) passes `d = 0`, whose learned embedding is not zero; true passes
    `d = 1000 / steps` for distilled few-step sampling (use guidance strength 0 with it).
    """

    def __init__(
        self,
        reverse_fn: ClassifierFreeGuidance,
        inference_steps: int = 25,
        rescale_t: float = 3.0,
        shortcut: bool = False,
    ) -> None:
        super().__init__(reverse_fn, inference_steps, rescale_t)
        self.shortcut = shortcut

    def evaluation_kwargs(self, x: Any) -> dict[str, Any]:
        first = next(iter(x.values())) if isinstance(x, Mapping) else x
        size = TIME_SCALE / self.inference_steps if self.shortcut else 0.0
        return {"d": torch.full((first.shape[0],), size, dtype=torch.float32, device=first.device)}
