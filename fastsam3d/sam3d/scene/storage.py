"""Keeps reconstructions on disk as they are, for going on with an interrupted scene.

One safetensors file each: arrays, and everything else as JSON in the file's metadata. Nothing in it can run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastsam3d.basics.files import write_atomically
from fastsam3d.errors import UserError
from fastsam3d.meshes.gaussians import Gaussian
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.sam3d.coloring.camera import PictureCamera, RigidPose
from fastsam3d.sam3d.coloring.surface import PictureProjection
from fastsam3d.sam3d.pipeline.pose import Pose
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction, SparseStructure

VERSION = 2
_MESH = ("vertices", "faces", "vertex_colors")
_POSE = ("rotation", "translation", "scale")
_STRUCTURE = ("logits", "coords", "interior_coords")
_PROJECTION, _CAMERA = ("colors", "share", "depth"), ("low", "gain", "start")
_GAUSSIAN = ("xyz", "features_dc", "scaling", "rotation", "opacity")


def save_reconstruction(result: Reconstruction, path: str | Path, made_of: str | None = None) -> Path:
    """Writes a reconstruction so that `load_reconstruction` gives it back bit by bit.

    Args:
        made_of: hash of everything that made it, see `made_of`.

    Raises:
        UserError: the path cannot be written.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {"feats": result.feats}
    tensors |= {f"pose.{name}": getattr(result.pose, name) for name in _POSE}
    tensors |= {f"structure.{name}": getattr(result.structure, name) for name in _STRUCTURE}
    tensors |= {f"latents.{name}": value for name, value in result.structure.latents.items()}
    if result.mesh is not None:
        tensors |= {f"mesh.{name}": torch.from_numpy(getattr(result.mesh, name)) for name in _MESH}
    if result.gaussian is not None:
        tensors |= {f"gaussian.{name}": getattr(result.gaussian, name) for name in _GAUSSIAN}
    if (seen := result.projection) is not None:
        arrays = {name: getattr(seen, name) for name in _PROJECTION}
        arrays |= {f"camera.{name}": getattr(seen.camera, name) for name in _CAMERA}
        arrays |= {f"camera.pose.{name}": value for name, value in seen.camera.pose._asdict().items()}
        tensors |= {f"projection.{name}": torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    values = {
        "version": VERSION,
        "seed": result.seed,
        "stage_seconds": result.stage_seconds,
        "downsample_factor": result.structure.downsample_factor,
        "made_of": made_of,
        "agreement": None if seen is None else seen.agreement,
        "mininum_kernel_size": getattr(result.gaussian, "mininum_kernel_size", None),
    }
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return write_atomically(path, save(plain, {"fastsam3d": json.dumps(values)}))


def made_of(path: str | Path) -> str | None:
    """The hash that `save_reconstruction` was given; None of a file that has none, or cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            return json.loads((file.metadata() or {})["fastsam3d"])["made_of"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def load_reconstruction(path: str | Path) -> Reconstruction:
    """Reads a file of `save_reconstruction`; tensors are on the CPU.

    Raises:
        UserError: missing, damaged, or written by another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            values: dict[str, Any] = json.loads((file.metadata() or {})["fastsam3d"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']}")

        def part(prefix: str) -> dict[str, Tensor]:
            start = len(prefix) + 1
            return {name[start:]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}

        mesh, gaussian = part("mesh"), part("gaussian")
        kernel = values["mininum_kernel_size"]
        return Reconstruction(
            mesh=Mesh(**{name: value.numpy() for name, value in mesh.items()}) if mesh else None,
            gaussian=Gaussian(**gaussian, mininum_kernel_size=kernel) if gaussian else None,
            pose=Pose(**part("pose")),
            structure=SparseStructure(
                latents=part("latents"), **part("structure"), downsample_factor=values["downsample_factor"]
            ),
            feats=tensors["feats"],
            seed=values["seed"],
            stage_seconds=dict(values["stage_seconds"]),
            projection=_projection(part("projection"), values["agreement"]),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): it is damaged or of another version. Remove it.") from None


def _projection(tensors: Mapping[str, Tensor], agreement: float) -> PictureProjection | None:
    if not tensors:
        return None
    arrays = {name: value.numpy() for name, value in tensors.items()}
    pose = RigidPose(*(arrays[f"camera.pose.{name}"] for name in RigidPose._fields))
    camera = PictureCamera(pose, *(arrays[f"camera.{name}"] for name in _CAMERA))
    return PictureProjection(camera, arrays["colors"], arrays["share"], arrays["depth"], agreement)
