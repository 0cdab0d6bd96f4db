"""Takes over samplers of rectified flow whose time runs from noise (1) to data (0): TRELLIS, TRELLIS.2, Pixal3D.

Their velocity points from data to noise. Both are turned round, so that techniques see one convention: `t = 1 - t'`,
`v = -v'` (docs/facts.md, section S13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.host import Runner
from fastsam3d.diffusion.hosts.shared.flow_evaluations import as_tensor, evaluator, is_zero, times_of, with_values
from fastsam3d.diffusion.hosts.shared.model_table import ModelTableHost
from fastsam3d.diffusion.hosts.shared.signatures import class_signature
from fastsam3d.diffusion.hosts.shared.wrappers import owner_of
from fastsam3d.diffusion.sites import Forward, NetworkSite
from fastsam3d.diffusion.vocabulary import LATENT, SHAPE, SPARSE_STRUCTURE, Trajectory

Interval = tuple[float, float]


class FlowSamplingHost(ModelTableHost):
    """A pipeline whose samplers have `sample` and `_inference_model`, the guided velocity of one step."""

    samplers: Mapping[str, str]
    """Attribute of the pipeline that holds the sampler of each stage, by name of stage. Stages may share one."""

    def network(self, stage: str) -> Any:
        return self.pipeline.models[self.networks[stage]]

    def sampler(self, stage: str) -> Any:
        """The sampler of a stage, within wrappers that hand on its attributes."""
        return owner_of(getattr(self.pipeline, self.samplers[stage]), "sample", "_inference_model")

    @property
    def moves_weights(self) -> bool:
        """Whether the pipeline moves the weights of its networks between runs."""
        return False

    def check(self) -> None:
        super().check()
        for stage in self.stages:
            self.sampler(stage)

    def seeded_networks(self, stage: str) -> list[NetworkSite]:
        if self.stages[stage] != SPARSE_STRUCTURE or self.is_sealed(stage):
            return []
        return [NetworkSite(self.network(stage), self.moves_weights)]

    def attach_sampler(self, patches: Patches, stage: str, runner: Runner) -> None:
        sampler = self.sampler(stage)
        # Stages may share one sampler object; then a call belongs to the stage whose network it brings.
        network = self.network(stage)
        name = SHAPE if self.stages[stage] == SPARSE_STRUCTURE else LATENT
        signature = class_signature(sampler, "sample")
        assert signature is not None  # `check` has found the method

        def sampled(original: Forward) -> Forward:
            def sample(*args: Any, **kwargs: Any) -> Any:
                call = signature.bind(*args, **kwargs)
                call.apply_defaults()
                given = call.arguments | call.arguments.get("kwargs", {})
                if given["model"] is not network:
                    return original(*args, **kwargs)
                rescale, interval = given["rescale_t"], self.guidance_interval(given)
                own = given["steps"], rescale
                edges = [1.0 - bound for bound in interval or ()]
                grid = runner.grid(*own, lambda n: [1.0 - t for t in times_of(n, rescale)], edges)
                if grid != own:
                    call.arguments["steps"], call.arguments["rescale_t"] = grid
                runner.start(self.trajectory(stage, times_of(*grid), interval, given))
                runner.state.zero_condition = is_zero(given["neg_cond"])
                try:
                    return original(*call.args, **call.kwargs)
                finally:
                    runner.finish()

            return sample

        def guided(original: Forward) -> Forward:
            def inference_model(model: Any, x: Any, t: float, cond: Any = None, **kwargs: Any) -> Any:
                if not runner.state.running or model is not network or "neg_cond" not in kwargs:
                    return original(model, x, t, cond, **kwargs)
                evaluate = evaluator(original, runner, name, (model, x, t, cond), kwargs)
                velocity = runner.velocity({name: as_tensor(x)}, 1.0 - float(t), evaluate)[name]
                return with_values(x, -velocity)

            return inference_model

        patches.replace(sampler, "sample", sampled)
        patches.replace(sampler, "_inference_model", guided)

    def guidance_interval(self, given: Mapping[str, Any]) -> Interval | None:
        """Times of the sampler, 1 noise to 0 data, between which it runs both branches; None where it never does.

        Args:
            given: arguments of the sampler's `sample`, by name.
        """
        return given.get("cfg_interval", (0.0, 1.0))

    def trajectory(
        self, stage: str, times: Sequence[float], interval: Interval | None, given: Mapping[str, Any]
    ) -> Trajectory:
        """The run that is about to start.

        Args:
            stage: its name.
            times: of the sampler, 1 noise to 0 data.
            interval: see `guidance_interval`.
            given: arguments of the sampler's `sample`, by name.
        """
        kind, noise = self.stages[stage], given["noise"]
        coords = None if kind == SPARSE_STRUCTURE else noise.coords
        return Trajectory(
            stage=kind,
            times=tuple(float(1.0 - t) for t in times),
            guided=tuple(interval is not None and bool(interval[0] <= t <= interval[1]) for t in times[:-1]),
            coords=coords,
            logits=None if coords is None else self.logits_of(coords),
            cells=None if coords is None else self.cells(stage, coords),
            occupancy=self._occupancy() if kind == SPARSE_STRUCTURE else None,
        )

    def logits_of(self, coords: Tensor) -> Tensor | None:
        """Occupancy logits `[1, 1, R, R, R]` that the voxels of a run came from; None where they are not known."""
        return None

    def cells(self, stage: str, coords: Tensor) -> Tensor | None:
        """Transformer token `[N]` of each voxel of a latent stage; None where tokens are not those of one object."""
        return None

    def _occupancy(self) -> Callable[[Mapping[str, Tensor]], Tensor]:
        @torch.no_grad()
        def occupancy(latents: Mapping[str, Tensor]) -> Tensor:
            return self.pipeline.models[self.structure_decoder](latents[SHAPE]).float()

        return occupancy
