"""The family `mllm`: language models that read 3D scenes as visual tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastsam3d.acceleration.compatibility import refuse_what_a_host_lacks
from fastsam3d.acceleration.family import Family, register_family
from fastsam3d.acceleration.patching import Patches
from fastsam3d.mllm.capabilities import RULES
from fastsam3d.mllm.registry import REGISTRY

if TYPE_CHECKING:
    from fastsam3d.acceleration.presets import AccelerationConfig
    from fastsam3d.mllm.attachment import Attachment
    from fastsam3d.mllm.host import Host


class MllmFamily(Family):
    """Language models of Hugging Face transformers, and hosts that others register."""

    name = "mllm"
    presets = "mllm"
    rules = RULES
    registry = REGISTRY

    def find_host(self, model: Any) -> Host | None:
        from fastsam3d.mllm.hosts import recognised

        return recognised(model)

    def known_models(self) -> list[str]:
        from fastsam3d.mllm.hosts import hosts

        return [host.name for host in hosts()]

    def fit(self, host: Host, config: AccelerationConfig) -> AccelerationConfig:
        from fastsam3d.mllm.dropping.plan import plan_of

        host.check()
        refuse_what_a_host_lacks(self.registry, self.rules, host, config.settings)
        plan_of(config, len(host.layers))
        return config

    def attach(
        self, host: Host, config: AccelerationConfig, patches: Patches, accelerate: Callable[[Any], Any]
    ) -> Attachment:
        from fastsam3d.mllm.attachment import Attachment

        attachment = Attachment(host, config, patches)
        attachment.attach()
        return attachment


register_family(MllmFamily())
