"""Acceleration of sampled 3D generators: the family `diffusion`.

What an extension needs is here: `Technique`, `TechniqueConfig`, `setting` and `register` for a technique,
`ExactSaving` and `register_saving` for an exact saving, `Host` and `register_host` for a pipeline. Names are imported
when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastsam3d.acceleration.registry import Technique
    from fastsam3d.acceleration.settings import TechniqueConfig, setting
    from fastsam3d.diffusion.capabilities import SPARSE_STRUCTURE, STAGES, STRUCTURED_LATENT
    from fastsam3d.diffusion.exact.saving import ExactSaving, register_saving
    from fastsam3d.diffusion.host import Host
    from fastsam3d.diffusion.hosts import register_host
    from fastsam3d.diffusion.registry import register
    from fastsam3d.diffusion.vocabulary import stages_setting

__all__ = [
    "SPARSE_STRUCTURE",
    "STAGES",
    "STRUCTURED_LATENT",
    "ExactSaving",
    "Host",
    "Technique",
    "TechniqueConfig",
    "register",
    "register_host",
    "register_saving",
    "setting",
    "stages_setting",
]

_MODULES = {
    "SPARSE_STRUCTURE": "fastsam3d.diffusion.capabilities",
    "STAGES": "fastsam3d.diffusion.capabilities",
    "STRUCTURED_LATENT": "fastsam3d.diffusion.capabilities",
    "ExactSaving": "fastsam3d.diffusion.exact.saving",
    "Host": "fastsam3d.diffusion.host",
    "Technique": "fastsam3d.acceleration.registry",
    "TechniqueConfig": "fastsam3d.acceleration.settings",
    "register": "fastsam3d.diffusion.registry",
    "register_host": "fastsam3d.diffusion.hosts",
    "register_saving": "fastsam3d.diffusion.exact.saving",
    "setting": "fastsam3d.acceleration.settings",
    "stages_setting": "fastsam3d.diffusion.vocabulary",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
