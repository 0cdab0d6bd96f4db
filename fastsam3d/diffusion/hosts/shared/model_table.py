"""The part that hosts share whose pipelines hold their networks in a table `models`, with parts named as in TRELLIS."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.host import Host, Recorder
from fastsam3d.diffusion.hosts.shared.attention_sites import cross_attention_sites
from fastsam3d.diffusion.hosts.shared.expectations import Expected, differences
from fastsam3d.diffusion.hosts.shared.sparse_states import SPARSE
from fastsam3d.diffusion.hosts.shared.stage_clock import StageClock
from fastsam3d.diffusion.hosts.shared.wrappers import is_compiled
from fastsam3d.diffusion.sites import TENSORS, CrossAttentionSite, Forward, HiddenStates
from fastsam3d.diffusion.vocabulary import STRUCTURED_LATENT
from fastsam3d.errors import UserError


class ModelTableHost(Host):
    """A pipeline with `models`, whose networks have `blocks` with `self_attn` and `cross_attn`.

    Class attributes say where its parts are.
    """

    networks: Mapping[str, str]
    """Name in `models` of the object that holds each stage's network."""
    structure_decoder: ClassVar[str]
    """Name in `models` of the decoder that gives occupancy logits."""
    stage_methods: ClassVar[Mapping[str, str]]
    """Stage of the report by method of the pipeline."""
    stage_models: ClassVar[Mapping[str, str]] = {}
    """Stage of the report by name in `models`."""
    nested_stages: ClassVar[Mapping[tuple[str, str], str]] = {}
    """Name in the report of a stage (second) that runs inside another (first)."""
    expectations: tuple[Expected, ...]
    """The parts of the pipeline that this host reads or replaces."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.pipeline.device)

    @abstractmethod
    def network(self, stage: str) -> Any:
        """The module whose `blocks` compute the velocity of a stage."""

    def check(self) -> None:
        """Refuses a pipeline that lacks what every run needs.

        Raises:
            UserError: with the list of differences.
        """
        lines = differences(self.pipeline, [e for e in self.expectations if not e.optional])
        if lines:
            raise UserError(
                f"this {type(self.pipeline).__name__} is not the {self.name} that is known here:\n  "
                + "\n  ".join(lines)
                + "\nUpdate fastsam3d, or use the version of the pipeline that docs/new_pipeline.md names."
            )

    def describe_differences(self) -> list[str]:
        return differences(self.pipeline, self.expectations)

    def model(self, name: str) -> Any | None:
        """A member of `models`, None where there is none."""
        models = self.pipeline.models
        return models[name] if name in models else None  # noqa: SIM401 - a ModuleDict has no `get`

    # --- sites in the networks

    def is_sealed(self, stage: str) -> bool:
        """Whether a stage's network is compiled, so that nothing can be attached inside it."""
        network = self.network(stage)
        return any(is_compiled(module) for module in (network, *getattr(network, "blocks", ())))

    def refusals(self) -> dict[tuple[str, str], str]:
        compiled = "its {} network is compiled, and blocks are skipped inside of it"
        sealed = {kind: stage for stage, kind in self.stages.items() if self.is_sealed(stage)}
        refused = {(kind, "block_stack"): compiled.format(stage) for kind, stage in sealed.items()}
        if (reason := self._tokens_refusal()) is not None:
            refused[STRUCTURED_LATENT, "tokens"] = reason
        return refused

    def _tokens_refusal(self) -> str | None:
        """Why its latent networks cannot compute some of their tokens among the others; None where they can."""
        for stage in self.stages_of(STRUCTURED_LATENT):
            if self.is_sealed(stage):
                return "its latent network is compiled, and tokens are left out inside of it"
            attention = self.network(stage).blocks[0].self_attn
            if getattr(attention, "attn_mode", "full") != "full" or not self._knows_positions(attention):
                return "its latent network does not attend to all tokens by one plain attention"
        return None

    def _knows_positions(self, attention: Any) -> bool:
        """Whether the sites of this host reproduce what a self-attention does with the positions of its tokens."""
        return not getattr(attention, "use_rope", False)

    def cross_attentions(self, stage: str) -> list[CrossAttentionSite]:
        if self.is_sealed(stage):
            return []
        states = self.block_states(stage)
        return [site for block in self.network(stage).blocks for site in cross_attention_sites(block, states)]

    def block_stack(self, stage: str) -> list[Any]:
        return [] if self.is_sealed(stage) else list(self.network(stage).blocks)

    def block_states(self, stage: str) -> HiddenStates:
        return SPARSE if self.stages[stage] == STRUCTURED_LATENT else TENSORS

    # --- the report

    def attach_recorder(self, patches: Patches, recorder: Recorder) -> None:
        clock = StageClock(self.device, aliases=self.nested_stages)

        def whole(original: Forward) -> Forward:
            def run(*args: Any, **kwargs: Any) -> Any:
                if clock.running:
                    return original(*args, **kwargs)
                with clock.run():
                    result = original(*args, **kwargs)
                recorder.add_object(dict(clock.seconds))
                return result

            return run

        for name in self.run_methods:
            if hasattr(self.pipeline, name):
                patches.replace(self.pipeline, name, whole)
        for name, stage in self.stage_methods.items():
            if hasattr(self.pipeline, name):
                patches.replace(self.pipeline, name, clock.timed(stage))
        for name, stage in {self.structure_decoder: "ss_decode", **self.stage_models}.items():
            if self.model(name) is not None:
                patches.replace(self.model(name), "forward", clock.timed(stage))
        self.attach_clock(patches, clock)

    def attach_clock(self, patches: Patches, clock: StageClock) -> None:
        """Measures what is neither a method of the pipeline nor one of its `models`."""
