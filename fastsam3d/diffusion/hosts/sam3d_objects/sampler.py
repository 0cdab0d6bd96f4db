"""A sampler of SAM 3D Objects: its times, its guidance, and evaluations of its network (docs/facts.md, section S4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fastsam3d.diffusion.partial.subset import spread
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, EvaluationState
from fastsam3d.diffusion.vocabulary import LATENT, GuidedVelocity, Trajectory


class RunSteps:
    """Counts the steps of the sampling run in progress.

    Attributes:
        times: of the run, 0 (noise) to 1 (data).
    """

    def __init__(self) -> None:
        self.times: tuple[float, ...] = ()
        self._asked = 0

    def begin(self, trajectory: Trajectory) -> None:
        """Starts counting the steps of a run."""
        self.times, self._asked = trajectory.times, 0

    def next(self) -> int | None:
        """Index of the step that asks; None after the last. Counted: reading the time would wait for the device."""
        self._asked += 1
        return self._asked - 1 if self._asked < len(self.times) else None


class Sampler:
    """Reads times and guidance of a generator, at every use, because pipelines rewrite them.

    Args:
        generator: has `reverse_fn`, the guidance around the network.
    """

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    @property
    def shortcut(self) -> bool:
        """Whether it samples in the distilled mode.

        Only a generator with a step size knows that mode; the pipeline sets the flag on both.
        """
        return hasattr(self.generator, "_prepare_t_and_d") and not self.generator.no_shortcut

    def times(self, steps: int | None = None) -> list[float]:
        """Times of a run from 0 to 1, as the generator makes them: `steps + 1`, its own number where None."""
        if hasattr(self.generator, "_prepare_t_and_d"):
            return [float(t) for t in self.generator._prepare_t_and_d(steps)[0]]
        return self.generator._prepare_t(steps).tolist()

    def edges(self) -> tuple[float, ...]:
        """Times 0..1 at which guidance begins or ends; none without guidance, as in the distilled mode."""
        if not _is_positive(self.generator.reverse_fn.strength):
            return ()
        interval = self.generator.reverse_fn.interval
        intervals = interval.values() if isinstance(interval, Mapping) else [interval]
        scale = self.generator.time_scale
        return tuple(bound / scale for bounds in intervals if bounds is not None for bound in bounds)

    def strength(self, time: float) -> Any:
        """Guidance strength at a time 0..1, a number or one for each modality; 0 outside the interval (4.2)."""
        guidance = self.generator.reverse_fn
        scaled = float(np.float32(time * self.generator.time_scale))  # as the network is told it

        def inside(strength: float, interval: Any) -> float:
            return strength if interval is not None and interval[0] <= scaled <= interval[1] else 0.0

        strength, interval = guidance.strength, guidance.interval
        if not isinstance(strength, Mapping):
            return inside(strength, interval)
        bounds = interval if isinstance(interval, Mapping) else dict.fromkeys(strength, interval)
        return {name: inside(value, bounds[name]) for name, value in strength.items()}

    def is_guided(self, time: float) -> bool:
        """Whether guidance is on at a time 0..1, for any modality."""
        return _is_positive(self.strength(time))

    def evaluation(
        self, network: Any, state: EvaluationState, time: float, call: tuple[Any, ...], single: bool
    ) -> Callable[..., GuidedVelocity]:
        """The `evaluate` of one step (`fastsam3d.diffusion.vocabulary.Evaluate`).

        The pipeline's own `inner_forward` computes each branch and its own `_cfg_step` combines them. A recording
        network inside one guided call, as in the host of TRELLIS, is not possible here: the network is a registered
        submodule of the guidance, and a compiled `inner_forward` calls the network that it was compiled with.

        Args:
            network: inside the guidance.
            state: written while a branch runs.
            time: of the step, 0..1.
            call: `(t, args, kwargs)` with which the generator asked for a velocity.
            single: the state is one tensor, not a mapping of modalities.
        """
        guidance = self.generator.reverse_fn
        t, args, kwargs = call
        strength = self.strength(time)
        flagged = guidance.unconditional_handling == "add_flag"
        zeroed = getattr(network, "force_zeros_cond", False) if flagged else True
        is_guided = _is_positive(strength)

        def named(value: Any) -> Any:
            return {LATENT: value} if single else dict(value)

        def branch(name: str, own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            state.branch = name
            # The pipeline's own unguided call, compiled or not; the network takes entries out of its keywords.
            return guidance.inner_forward(own, t, True, 0.0, *args, **dict(kwargs))

        def evaluate(
            x: dict[str, Tensor],
            tokens: Tensor | None = None,
            *,
            subset: Tensor | None = None,
            conditional_only: bool = False,
        ) -> GuidedVelocity:
            own, given = (x[LATENT] if single else x), args
            if subset is not None:
                own = x[LATENT].index_select(1, subset)
                given = (*args[:-1], args[-1][subset.cpu().numpy()])
            state.condition = next((a for a in args if isinstance(a, Tensor)), None)
            state.tokens, state.subset, state.time = tokens, subset, time
            state.zero_condition = zeroed
            state.evaluation += 1
            try:
                conditional = branch(CONDITIONAL, own, given, kwargs)
                c = {name: v.float() for name, v in named(conditional).items()}
                delta, guided = None, named(conditional)
                if is_guided and conditional_only:
                    guided = None  # the policy that asked adds the rest
                elif is_guided:
                    other_args, other_kwargs = guidance._make_unconditional_args(given, dict(kwargs))
                    unconditional = branch(UNCONDITIONAL, own, tuple(other_args), other_kwargs)
                    guided = named(guidance._cfg_step(conditional, unconditional, strength))
                    u = named(unconditional)
                    # In fp32, because policies keep and extrapolate it; the network may compute in half precision.
                    delta = {name: _of(strength, name) * (value - u[name].float()) for name, value in c.items()}
            finally:
                state.end_evaluation()
            if subset is not None:
                parts = [part and spread(part, x, subset) for part in (c, delta, guided)]
                return GuidedVelocity(parts[0] or {}, parts[1], guided=parts[2])
            return GuidedVelocity(c, delta, guided=guided)

        return evaluate


def _is_positive(strength: Any) -> bool:
    return any(w > 0 for w in strength.values()) if isinstance(strength, Mapping) else strength > 0


def _of(strength: Any, name: str) -> float:
    return strength[name] if isinstance(strength, Mapping) else strength
