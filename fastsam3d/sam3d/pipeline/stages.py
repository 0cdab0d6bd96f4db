"""The stages of the native pipeline, each a method that can be replaced or called alone.

Stage names, latents and the order of calls follow SAM 3D Objects (docs/facts.md, section S1), so that what
attaches to one pipeline attaches to the other. `pipeline.py` runs them one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastsam3d.basics.runs import Runs, begin_computing, counted
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.sam3d.memory.budget import MemoryLimit
from fastsam3d.sam3d.memory.residency import Residency, Resident
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.pipeline.finite import require_finite
from fastsam3d.sam3d.pipeline.formats import check_formats
from fastsam3d.sam3d.pipeline.noise import latent_noise, structure_noise
from fastsam3d.sam3d.pipeline.occupancy import structure_of
from fastsam3d.sam3d.pipeline.pose import Pose, decode_pose
from fastsam3d.sam3d.pipeline.preprocessing import ConditionInputs, SharedPicture, prepare_condition, share_picture
from fastsam3d.sam3d.pipeline.reconstruction import SparseStructure
from fastsam3d.sam3d.pipeline.timing import stage, step_reporter

EMBEDDERS = {"sparse_structure": "ss_condition_embedder", "structured_latent": "slat_condition_embedder"}
"""Network that embeds the condition of each sampled stage."""
TIMED_EMBEDDING = {"sparse_structure": "ss_condition", "structured_latent": "slat_condition"}
"""Stage under which its time is counted."""


class Stages:
    """The networks of a pipeline and the stages that they compute.

    Every stage is looked up on the instance and is pure given its arguments.

    Args:
        models: `ss_generator`, `ss_decoder`, `slat_generator`, and `slat_decoder_mesh` and/or
            `slat_decoder_gs`.
        condition_embedders: `ss_condition_embedder`, `slat_condition_embedder`.
        config: sizes and constants of the model.
        device: where the networks are.
        autocast: dtype of the networks' mixed precision; None runs them as they are stored.
        residency: brings each network to the device for its stage; by default all of them are there.
        memory: the budget that objects are checked against; None checks nothing.
    """

    def __init__(
        self,
        models: nn.ModuleDict,
        condition_embedders: Mapping[str, nn.Module],
        config: ModelConfig,
        device: torch.device | str = "cpu",
        autocast: torch.dtype | None = None,
        residency: Residency | None = None,
        memory: MemoryLimit | None = None,
    ) -> None:
        begin_computing()  # whoever built the networks has computed
        self.models = models
        self.condition_embedders = dict(condition_embedders)
        self.config = config
        self.device = torch.device(device)
        self.autocast = autocast
        self.residency: Residency = residency or Resident()
        self.memory = memory
        self.runs = Runs()

    def share_picture(self, image: Any, pointmap: Any = None) -> SharedPicture:
        """Prepares what all objects of a picture share. The result takes the place of the image, and of the point
        map with it, in `run`, `preprocess` and `sample_structures`.

        Raises:
            UserError: an unusable image or point map.
        """
        return share_picture(image, pointmap, image_size=self.config.image_size, device=self.device)

    def preprocess(self, image: Any, mask: Any, pointmap: Any = None) -> ConditionInputs:
        """Inputs of the condition embedders, on the pipeline's device. See `prepare_condition`."""
        inputs = prepare_condition(
            image, mask, pointmap, image_size=self.config.image_size, scale_over=self.config.scene_scale_over
        )
        return {name: value.to(self.device) for name, value in inputs.items()}

    @torch.no_grad()
    def embed_condition(
        self, name: Literal["sparse_structure", "structured_latent"], inputs: ConditionInputs
    ) -> Tensor:
        """Condition tokens `[1, L, C]` of a stage.

        Raises:
            UserError: they are not finite.
        """
        with stage(TIMED_EMBEDDING[name]), self.residency.using(EMBEDDERS[name]), self._mixed_precision():
            tokens: Tensor = self.condition_embedders[EMBEDDERS[name]](**inputs)
            require_finite(EMBEDDERS[name], tokens)
            return tokens

    @torch.no_grad()
    @counted
    def sample_sparse_structure(
        self, condition: Tensor, generator: torch.Generator, *, layout: bool = True
    ) -> SparseStructure:
        """First stage: layout latents and the voxels that the surface passes through.

        Args:
            condition: tokens `[1, L, C]` of the first stage.
            generator: CPU generator; noise is drawn latent by latent in sorted order of their names.
            layout: false computes the shape alone; noise is drawn for all latents, so that the shape is the same.

        Raises:
            UserError: the network's output is not finite.
        """
        latents = self.sample_structure_latents(condition, [generator], layout)
        with stage("ss_decode"):
            return self.decode_sparse_structure(latents, generator)

    @torch.no_grad()
    def sample_structure_latents(
        self, condition: Tensor, generators: Sequence[torch.Generator], layout: bool = True
    ) -> dict[str, Tensor]:
        """Latents of as many objects as there are generators; `condition [B, L, C]`."""
        sampler: Any = self.models["ss_generator"]
        with stage("sparse_structure"), self.residency.using("ss_generator"), self._mixed_precision():
            drawn = structure_noise(sampler.reverse_fn.backbone.latent_shapes(1), generators)
            scale = self.config.ss_sampler.noise_scale
            noise = {name: scale * v.to(self.device) for name, v in drawn.items() if layout or name == "shape"}
            latents: dict[str, Tensor] = sampler.sample(noise, condition, progress=step_reporter("sparse_structure"))
            require_finite("ss_generator", *latents.values())
            return latents

    @torch.no_grad()
    def decode_sparse_structure(
        self, latents: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> SparseStructure:
        """Sampled latents to voxels: decode, threshold, drop the inside, halve the grid if it is too full.

        Args:
            latents: of the first stage; `shape` is decoded.
            generator: used only where a halved grid still has too many voxels, to choose among them.
        """
        return self.decode_sparse_structures(latents, [generator])[0]

    @torch.no_grad()
    def decode_sparse_structures(
        self, latents: Mapping[str, Tensor], generators: Sequence[torch.Generator | None]
    ) -> list[SparseStructure]:
        """Decodes a batch of latents to voxels, with a generator for each object.

        One pass of the decoder for all: on a CPU PyTorch takes its fast 3D convolution for batches of more than one,
        three times as fast an object as the other (the exact savings take it for single objects too).
        """
        with self.residency.using("ss_decoder"), self._mixed_precision():
            logits = self.models["ss_decoder"](latents["shape"]).float()
        # Copies, so that no object keeps the tensors of the whole batch alive.
        parts = [
            ({name: value[i : i + 1].clone() for name, value in latents.items()}, logits[i : i + 1].clone())
            for i in range(len(generators))
        ]
        return [structure_of(*own, self.config, one) for own, one in zip(parts, generators, strict=True)]

    def decode_pose(self, latents: Mapping[str, Tensor], inputs: ConditionInputs) -> Pose:
        """Layout latents to a pose in the camera frame."""
        return decode_pose(latents, inputs["pointmap_scale"], inputs["pointmap_shift"], self.config.pose)

    @torch.no_grad()
    @counted
    def sample_slat(self, condition: Tensor, structure: SparseStructure, generator: torch.Generator) -> Tensor:
        """Second stage: latents at the voxels, de-normalised, `[N, 8]` fp32.

        Args:
            condition: tokens `[1, L, C]` of the second stage.
            structure: `coords` says where; nothing else of it is used.
            generator: CPU generator. With `noise_by_place` noise is drawn for every cell of the grid and
                gathered, so that two runs whose voxels differ a little get the same noise where they agree.
        """
        if self.memory is not None:
            self.memory.check(len(structure.coords))
        sampler: Any = self.models["slat_generator"]
        channels = len(self.config.slat_mean)
        with stage("structured_latent"), self.residency.using("slat_generator"), self._mixed_precision():
            coords = structure.coords
            side = self.config.resolution if self.config.noise_by_place else None
            noise = latent_noise(coords, channels, generator, side)
            progress = step_reporter("structured_latent")
            noise = self.config.slat_sampler.noise_scale * noise[None].to(self.device)
            feats = sampler.sample(noise, condition, coords, progress=progress)[0].float()
            require_finite("slat_generator", feats)
            mean = torch.tensor(self.config.slat_mean, device=feats.device)
            std = torch.tensor(self.config.slat_std, device=feats.device)
            return feats * std + mean

    @torch.no_grad()
    @counted
    def decode_slat(
        self, feats: Tensor, structure: SparseStructure, formats: Sequence[str] = ("mesh",)
    ) -> dict[str, Any]:
        """Latents `[N, 8]` to a `Mesh` and/or Gaussians, by format.

        Raises:
            UserError: a format that this model has no decoder for, or a surface that is not finite.
        """
        check_formats(formats, self.models, self.config.name)
        decoded: dict[str, Any] = {}
        if "mesh" in formats:
            decoded["mesh"] = self.decode_mesh(feats, structure, last="gaussian" not in formats)
        if "gaussian" in formats:
            with stage("gaussian_decode"), self.residency.using("slat_decoder_gs", last=True):
                gaussian = self.models["slat_decoder_gs"](feats, structure.coords)[0]
                parts = gaussian.xyz, gaussian.features_dc, gaussian.scaling, gaussian.rotation, gaussian.opacity
                require_finite("slat_decoder_gs", *parts)
                decoded["gaussian"] = gaussian
        return decoded

    @torch.no_grad()
    def decode_mesh(self, feats: Tensor, structure: SparseStructure, last: bool = True) -> Mesh:
        """Latents to the coloured surface in the object frame.

        Args:
            feats: `[N, 8]` at `structure.coords`, as `sample_slat` gives them.
            structure: where the voxels are, and which of them the surface does not pass through.
            last: no other network follows in this run.

        Raises:
            UserError: the surface is not finite.
        """
        decoder: Any = self.models["slat_decoder_mesh"]
        interior = structure.interior_coords if len(structure.interior_coords) else None
        with stage("mesh_decode"), self.residency.using("slat_decoder_mesh", last=last):
            output = decoder(feats, structure.coords)
            require_finite("slat_decoder_mesh", output.feats)
        with stage("surface"):
            surface = decoder.extract(output, interior)
            require_finite("slat_decoder_mesh", surface.vertices)
            return Mesh(
                vertices=surface.vertices.float().cpu().numpy(),
                faces=surface.faces.cpu().numpy(),
                vertex_colors=surface.attributes[:, :3].float().cpu().numpy(),
            )

    def _mixed_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)
