"""Training-free acceleration for SAM 3D Objects, and a native pipeline that runs on any machine.

    pipeline = fastsam3d.load_pipeline("mini")
    with fastsam3d.accelerate(pipeline, "balanced") as acceleration:
        result = pipeline.run(image, mask)
        print(acceleration.report())

`presets()` names the presets.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.version import __version__

if TYPE_CHECKING:
    from fastsam3d.acceleration.family import describe_differences
    from fastsam3d.acceleration.handle import Acceleration, accelerate
    from fastsam3d.basics.config_files import preset_names as presets
    from fastsam3d.errors import UserError
    from fastsam3d.meshes.finishing.finishing import finish
    from fastsam3d.sam3d.checkpoints.loading import load_pipeline
    from fastsam3d.sam3d.export import export

__all__ = [
    "Acceleration",
    "UserError",
    "__version__",
    "accelerate",
    "describe_differences",
    "export",
    "finish",
    "load_pipeline",
    "presets",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())

# Public names by module and the name there. They are imported at first use: importing the package is instant and
# needs no PyTorch.
_LAZY = {
    "Acceleration": ("fastsam3d.acceleration.handle", "Acceleration"),
    "accelerate": ("fastsam3d.acceleration.handle", "accelerate"),
    "UserError": ("fastsam3d.errors", "UserError"),
    "describe_differences": ("fastsam3d.acceleration.family", "describe_differences"),
    "export": ("fastsam3d.sam3d.export", "export"),
    "finish": ("fastsam3d.meshes.finishing.finishing", "finish"),
    "load_pipeline": ("fastsam3d.sam3d.checkpoints.loading", "load_pipeline"),
    "presets": ("fastsam3d.basics.config_files", "preset_names"),
}


_FAMILIES = ("diffusion", "mllm")
"""Packages with public names of their own: `fastsam3d.mllm.load_mllm` needs no import beside that of `fastsam3d`."""


def __getattr__(name: str) -> Any:
    if name in _FAMILIES:
        return import_module(f"{__name__}.{name}")
    try:
        module, attribute = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FAMILIES})
