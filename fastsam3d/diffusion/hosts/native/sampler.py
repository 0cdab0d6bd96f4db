"""Evaluates the guided networks of the native pipeline, whole or in part, as techniques ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastsam3d.diffusion.evaluations.whole import Evaluation, Outputs
from fastsam3d.diffusion.host import Runner
from fastsam3d.diffusion.partial.subset import spread
from fastsam3d.diffusion.sites import BOTH, CONDITIONAL, UNCONDITIONAL
from fastsam3d.diffusion.vocabulary import LATENT, SHAPE, GuidedVelocity


def evaluator(
    generator: Any, runner: Runner, time: float, condition: Tensor, extra: tuple[Any, ...], single: bool
) -> Callable[..., GuidedVelocity]:
    """The `fastsam3d.diffusion.vocabulary.Evaluate` of one step.

    Args:
        generator: sampler of the stage.
        runner: of the stage.
        time: of the step, 0..1.
        condition: tokens `[B, L, C]`.
        extra: further arguments of the network.
        single: its state is one tensor, shown to policies under the name `LATENT`.
    """
    guidance, state = generator.reverse_fn, runner.state

    def named(value: Any) -> dict[str, Tensor]:
        return {LATENT: value} if single else dict(value)

    def evaluate(
        x: dict[str, Tensor],
        tokens: Tensor | None = None,
        *,
        subset: Tensor | None = None,
        conditional_only: bool = False,
        layout_only: bool = False,
    ) -> GuidedVelocity:
        own, more = x, extra
        if subset is not None and single:
            # Voxels are left out of the network altogether; shape tokens in its blocks, see `PartialStreams`.
            own, more = {LATENT: x[LATENT].index_select(1, subset)}, (extra[0][subset], *extra[1:])
        guided = guidance.is_guided(time) and not conditional_only
        whole = tokens is None and subset is None and not layout_only
        together = state.joint and whole and guided and not single and len(condition) == 1

        def passes(own: dict[str, Tensor], when: float | Tensor, condition: Tensor) -> Outputs:
            if together:
                state.branch = BOTH
                return _together(generator, own, when, condition)
            given: Any = own[LATENT] if single else own
            kwargs = generator.evaluation_kwargs(given)
            state.branch = CONDITIONAL
            conditional = named(guidance.conditional(given, when, condition, *more, **kwargs))
            if not guided:
                return (conditional,)
            state.branch = UNCONDITIONAL
            return conditional, named(guidance.unconditional(given, when, condition, *more, **kwargs))

        state.condition, state.tokens, state.time = condition, tokens, time
        state.subset, state.layout_only = subset, layout_only
        state.evaluation += 1
        try:
            if runner.replay is None or not whole:
                parts = passes(own, time, condition)
            else:
                step_size = generator.inference_steps if getattr(generator, "shortcut", False) else None
                parts = runner.replay.run(
                    Evaluation(
                        passes,
                        own,
                        time,
                        condition,
                        branches=frozenset((CONDITIONAL, UNCONDITIONAL) if guided else (CONDITIONAL,)),
                        kind=(together, step_size),
                        ahead=sum(later > time and guidance.is_guided(later) == guided for later in state.times),
                    )
                )
        finally:
            state.end_evaluation()
        results: list[dict[str, Tensor]] = [parts[0], *([guidance.delta(*parts, time)] if guided else [])]
        if layout_only:
            results = [{name: value for name, value in part.items() if name != SHAPE} for part in results]
        if subset is not None:
            results = [spread(part, x, subset) for part in results]
        return GuidedVelocity(results[0], results[1] if guided else None)

    return evaluate


def _together(generator: Any, x: dict[str, Tensor], time: float | Tensor, condition: Tensor) -> Outputs:
    """Both branches in one pass, as a batch of two; what is attached inside tells them apart."""
    doubled = {name: value.expand(2, *value.shape[1:]) for name, value in x.items()}
    kwargs = generator.evaluation_kwargs(doubled)
    out = generator.reverse_fn.conditional(doubled, time, condition, **kwargs)
    return tuple({name: value[i : i + 1] for name, value in out.items()} for i in (0, 1))
