"""TRELLIS as its authors publish it: `TrellisImageTo3DPipeline`.

Its time runs from noise (1) to data (0) and its velocity points from data to noise. Both are turned round here, so that
no technique knows: `t = 1 - t'`, `v = -v'` (SAM 3D Objects architecture, section 13). Nothing of it is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.host import Runner
from fastsam3d.diffusion.hosts.shared.two_stage import STAGE_METHODS, Structure, TwoStageHost
from fastsam3d.diffusion.hosts.trellis.parts import TRELLIS_PARTS
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, PictureEncoderSite
from fastsam3d.diffusion.vocabulary import (
    LATENT,
    SHAPE,
    SPARSE_STRUCTURE,
    STRUCTURED_LATENT,
    GuidedVelocity,
    Trajectory,
)
from fastsam3d.errors import UserError

SAMPLERS = {SPARSE_STRUCTURE: "sparse_structure_sampler", STRUCTURED_LATENT: "slat_sampler"}
"""Attribute of the pipeline that holds each stage's sampler."""
RADIANCE_FIELD = "radiance_field"


class TrellisHost(TwoStageHost):
    """The authors' pipeline, untouched.

    Velocities are taken over at the sampler's `_inference_model`, once a step. Several pictures by its `stochastic`
    mode pass through here as well; its `multidiffusion` mode goes past the sampler and runs as it is.
    """

    name = "TRELLIS (TrellisImageTo3DPipeline)"
    networks: ClassVar[Mapping[str, str]] = {
        SPARSE_STRUCTURE: "sparse_structure_flow_model",
        STRUCTURED_LATENT: "slat_flow_model",
    }
    capabilities: ClassVar[Mapping[str, tuple[str, ...]]] = {
        SPARSE_STRUCTURE: ("conditional_only", "occupancy", "block_stack"),
        STRUCTURED_LATENT: ("conditional_only", "tokens", "block_stack"),
    }
    structure_decoder = "sparse_structure_decoder"
    expectations = TRELLIS_PARTS
    run_methods = ("run", "run_multi_image")
    stage_methods: ClassVar[Mapping[str, str]] = {
        "preprocess_image": "preprocess",
        "get_cond": "condition",
        "sample_sparse_structure": "sparse_structure",
        "sample_slat": "structured_latent",
        "decode_slat": "decode",
    }

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self._formats: Sequence[str] = ()

    @classmethod
    def recognises(cls, pipeline: Any) -> bool:
        if not all(callable(getattr(pipeline, method, None)) for method in STAGE_METHODS):
            return False
        models = getattr(pipeline, "models", {})
        known = isinstance(models, dict) and all(name in models for name in cls.networks.values())
        return known and all(hasattr(pipeline, sampler) for sampler in SAMPLERS.values())

    def network(self, stage: str) -> Any:
        return self.pipeline.models[self.networks[stage]]

    def sampler(self, stage: str) -> Any:
        """The sampler of a stage."""
        return getattr(self.pipeline, SAMPLERS[stage])

    # --- sampling

    def attach_sampler(self, patches: Patches, stage: str, runner: Runner) -> None:
        sampler = self.sampler(stage)
        # Both stages may share one sampler object; then a call belongs to the stage whose network it brings.
        network = self.network(stage)
        name = SHAPE if stage == SPARSE_STRUCTURE else LATENT
        plain = _unguided(sampler)

        def sampled(original: Callable[..., Any]) -> Callable[..., Any]:
            signature = inspect.signature(original)

            def sample(*args: Any, **kwargs: Any) -> Any:
                call = signature.bind(*args, **kwargs)
                call.apply_defaults()
                given = call.arguments | call.arguments.get("kwargs", {})
                if given["model"] is not network:
                    return original(*args, **kwargs)
                rescale, interval = given["rescale_t"], given.get("cfg_interval", (0.0, 1.0))
                configured = given["steps"]
                edges = [1.0 - bound for bound in interval]
                steps = runner.steps(configured, lambda n: [1.0 - t for t in _times(n, rescale)], edges)
                if steps != configured:
                    call.arguments["steps"] = steps
                noise = given["noise"]
                runner.start(self._trajectory(stage, _times(steps, rescale), interval, noise))
                runner.state.zero_condition = not bool(given["neg_cond"].any())
                try:
                    return original(*call.args, **call.kwargs)
                finally:
                    runner.finish()

            return sample

        def guided(original: Callable[..., Any]) -> Callable[..., Any]:
            def inference_model(model: Any, x: Any, t: float, cond: Any = None, **kwargs: Any) -> Any:
                if not runner.state.running or model is not network or "neg_cond" not in kwargs:
                    return original(model, x, t, cond, **kwargs)
                evaluate = self._evaluate(plain, runner, name, (model, x, t, cond), kwargs)
                velocity = runner.velocity({name: _tensor(x)}, 1.0 - float(t), evaluate)[name]
                return _like(x, -velocity)

            return inference_model

        patches.replace(sampler, "sample", sampled)
        patches.replace(sampler, "_inference_model", guided)

    def _trajectory(
        self, stage: str, times: Sequence[float], interval: Sequence[float], noise: Any
    ) -> Trajectory:
        coords = noise.coords if stage == STRUCTURED_LATENT else None
        return Trajectory(
            stage=stage,
            times=tuple(float(1.0 - t) for t in times),
            guided=tuple(bool(interval[0] <= t <= interval[1]) for t in times[:-1]),
            coords=coords,
            logits=self._stage_logits if stage == STRUCTURED_LATENT else None,
            cells=None if coords is None else self.cells(coords),
            occupancy=self._occupancy if stage == SPARSE_STRUCTURE else None,
        )

    @torch.no_grad()
    def _occupancy(self, latents: Mapping[str, Tensor]) -> Tensor:
        return self.pipeline.models[self.structure_decoder](latents[SHAPE]).float()

    @staticmethod
    def _evaluate(
        plain: Callable[..., Any], runner: Runner, name: str, call: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[..., GuidedVelocity]:
        state = runner.state
        model, given, t, cond = call
        rest = {key: value for key, value in kwargs.items() if key not in ("neg_cond", "cfg_strength", "cfg_interval")}
        interval, strength = kwargs.get("cfg_interval", (0.0, 1.0)), kwargs["cfg_strength"]
        is_guided = interval[0] <= t <= interval[1]

        def branch(which: str, x: Any, condition: Tensor) -> Any:
            state.branch, state.condition = which, condition
            return plain(model, x, t, condition, **rest)

        def evaluate(
            x: dict[str, Tensor], tokens: Tensor | None = None, *, conditional_only: bool = False
        ) -> GuidedVelocity:
            own = given if x[name] is _tensor(given) else _like(given, x[name])
            state.tokens, state.time = tokens, 1.0 - float(t)
            state.evaluation += 1
            try:
                conditional = branch(CONDITIONAL, own, cond)
                c = -_tensor(conditional)
                if not is_guided:
                    return GuidedVelocity({name: c.float()}, None, guided={name: c})
                if conditional_only:
                    return GuidedVelocity({name: c.float()})
                unconditional = branch(UNCONDITIONAL, own, kwargs["neg_cond"])
            finally:
                state.end_evaluation()
            u = -_tensor(unconditional)
            combined = (1 + strength) * conditional - strength * unconditional
            delta = strength * (c.float() - u.float())
            return GuidedVelocity({name: c.float()}, {name: delta}, guided={name: -_tensor(combined)})

        return evaluate

    # --- voxels, picture, encodings

    def structure_of(self, result: Any) -> Structure:
        return Structure(result)

    def attach_picture(self, patches: Patches) -> None:
        def encoded(original: Callable[..., Any]) -> Callable[..., Any]:
            def get_cond(image: Any, *args: Any, **kwargs: Any) -> Any:
                self._picture = _picture(image)
                return original(image, *args, **kwargs)

            return get_cond

        if hasattr(self.pipeline, "get_cond"):
            patches.replace(self.pipeline, "get_cond", encoded)

    def picture_encoders(self) -> list[PictureEncoderSite]:
        encoder = self.model("image_cond_model")
        return [] if encoder is None else [PictureEncoderSite(encoder, "forward", pictures=1)]

    def attach_structure(self, patches: Patches, policy: Any | None) -> None:
        if policy is not None:
            for method in self.run_methods:
                if hasattr(self.pipeline, method):
                    patches.replace(self.pipeline, method, self._knowing_formats)
        super().attach_structure(patches, None if policy is None else _UnlessRadianceField(policy, self))

    def _knowing_formats(self, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        def run(*args: Any, **kwargs: Any) -> Any:
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            self._formats = call.arguments.get("formats", ())
            try:
                return original(*args, **kwargs)
            finally:
                self._formats = ()

        return run



class _UnlessRadianceField:
    """A voxel policy that leaves objects alone of which a radiance field is wanted: it cannot be put back."""

    def __init__(self, policy: Any, host: TrellisHost) -> None:
        self._policy, self._host = policy, host

    def reduce(self, voxels: Any) -> Any:
        return None if RADIANCE_FIELD in self._host._formats else self._policy.reduce(voxels)


def _unguided(sampler: Any) -> Callable[..., Any]:
    """The sampler's evaluation of the network alone: the first in its class's order that knows no guidance.

    Raises:
        UserError: there is none.
    """
    for kind in type(sampler).__mro__:
        function = vars(kind).get("_inference_model")
        if function is not None and "neg_cond" not in inspect.signature(function).parameters:
            return function.__get__(sampler)
    raise UserError(
        f"the sampler {type(sampler).__name__} has no evaluation without guidance; known are FlowEulerSampler and its "
        "subclasses."
    )


def _times(steps: int, rescale: float) -> Sequence[float]:
    """The sampler's times, from noise (1) to data (0), `steps + 1` (section 13)."""
    uniform = np.linspace(1, 0, steps + 1)
    return list(rescale * uniform / (1 + (rescale - 1) * uniform))


def _tensor(x: Any) -> Tensor:
    """State or velocity as a tensor; that of a sparse tensor is `[N, C]`."""
    return x if isinstance(x, Tensor) else x.feats


def _like(x: Any, values: Tensor) -> Any:
    return values if isinstance(x, Tensor) else x.replace(values)


def _picture(images: Any) -> tuple[Tensor, Tensor] | None:
    """Picture and object of a single picture, whose background the pipeline has painted black; else None."""
    if isinstance(images, Tensor) or len(images) != 1:
        return None
    pixels = torch.from_numpy(np.array(images[0].convert("RGB")))
    return pixels, pixels.amax(-1) > 0
