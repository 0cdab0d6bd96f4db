"""The family `diffusion`: sampled generators of 3D objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastsam3d.acceleration.compatibility import refuse_what_a_host_lacks
from fastsam3d.acceleration.family import Family, register_family
from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.capabilities import RULES
from fastsam3d.diffusion.registry import REGISTRY

if TYPE_CHECKING:
    from fastsam3d.acceleration.presets import AccelerationConfig
    from fastsam3d.diffusion.attachment import Attachment
    from fastsam3d.diffusion.host import Host


class DiffusionFamily(Family):
    """Sampled 3D generators: our own pipeline, SAM 3D Objects, TRELLIS, and hosts that others register."""

    name = "diffusion"
    presets = "acceleration"
    rules = RULES
    registry = REGISTRY

    def find_host(self, model: Any) -> Host | None:
        from fastsam3d.diffusion.hosts import recognised

        return recognised(model)

    def known_models(self) -> list[str]:
        from fastsam3d.diffusion.hosts import hosts

        return [host.name for host in hosts()]

    def fit(self, host: Host, config: AccelerationConfig) -> AccelerationConfig:
        from fastsam3d.acceleration.presets import load_preset
        from fastsam3d.diffusion.exact.saving import GROUP, savings
        from fastsam3d.diffusion.policies import blocks_needed

        host.check()
        refuse_what_a_host_lacks(self.registry, self.rules, host, config.settings)
        self._refuse_voxels(host, config)
        # Said before an acceleration that is there is taken off.
        for stage, kind in host.stages.items():
            blocks_needed(host, config, stage, kind)
        full = host.no_room_for()
        off = {f"{GROUP}.{saving.name}": False for saving in savings() if saving.keeps and saving.keeps in full}
        return load_preset(config, off, self.name) if off else config

    def _refuse_voxels(self, host: Host, config: AccelerationConfig) -> None:
        """Refuses techniques that change the voxels of a pipeline which cannot put them back.

        Raises:
            UserError: names the technique, the reason, and what to switch off.
        """
        from fastsam3d.errors import UserError

        reason = host.voxels_refusal()
        for technique in self.registry.values() if reason is not None else ():
            if technique.kind == "voxels" and technique.acts_on(config[technique.name]):
                raise UserError(
                    f"{technique.name} cannot be attached to this pipeline: {reason}. Set "
                    f"{technique.name}.enabled=false."
                )

    def notices(self, host: Host, config: AccelerationConfig) -> list[str]:
        from fastsam3d.diffusion.exact.saving import GROUP, savings

        active = savings(config[GROUP].switched_on)
        lines = []
        # One line a reason: a closed network closes several sites at once.
        by_reason: dict[tuple[str, str], list[str]] = {}
        for (site, place), reason in host.closed_sites().items():
            names = [saving.name for saving in active if site in saving.sites]
            known = by_reason.setdefault((place, reason), [])
            known += [name for name in names if name not in known]
        for (place, reason), names in by_reason.items():
            if names:
                where = f" in the {place} stage" if place else ""
                lines.append(f"{', '.join(names)} {'rests' if len(names) == 1 else 'rest'}{where}: {reason}")
        return lines

    def attach(
        self, host: Host, config: AccelerationConfig, patches: Patches, accelerate: Callable[[Any], Any]
    ) -> Attachment:
        from fastsam3d.diffusion.attachment import Attachment

        attachment = Attachment(host, config, patches, accelerate)
        attachment.attach()
        return attachment


register_family(DiffusionFamily())
