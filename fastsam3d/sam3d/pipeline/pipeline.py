"""The native single-image-to-3D pipeline: two sampled stages, a pose and a decoder.

Stage names, latents and the order of calls follow SAM 3D Objects (docs/facts.md, section S1), so that what
attaches to one pipeline attaches to the other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastsam3d.basics.pixels import as_seed
from fastsam3d.basics.runs import Runs, begin_computing, counted
from fastsam3d.errors import UserError
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.sam3d.memory.budget import MemoryLimit
from fastsam3d.sam3d.memory.residency import Residency, Resident
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.pipeline.finite import require_finite, require_float32
from fastsam3d.sam3d.pipeline.formats import check_formats
from fastsam3d.sam3d.pipeline.noise import latent_noise, structure_noise
from fastsam3d.sam3d.pipeline.occupancy import structure_of
from fastsam3d.sam3d.pipeline.picture_color import colors_shown, matched_colors, unshaded
from fastsam3d.sam3d.pipeline.picture_projection import (
    SIDE,
    PictureProjection,
    painted_gaussians,
    painted_mesh,
    project_picture,
)
from fastsam3d.sam3d.pipeline.pose import NoPose, Pose, decode_pose
from fastsam3d.sam3d.pipeline.preprocessing import (
    ConditionInputs,
    SharedPicture,
    mean_color,
    object_crop,
    prepare_condition,
    share_picture,
)
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction, SampledStructure, SparseStructure
from fastsam3d.sam3d.pipeline.timing import Progress, StageClock, recording, stage, step_reporter

EMBEDDERS = {"sparse_structure": "ss_condition_embedder", "structured_latent": "slat_condition_embedder"}
"""Network that embeds the condition of each sampled stage."""
TIMED_EMBEDDING = {"sparse_structure": "ss_condition", "structured_latent": "slat_condition"}
"""Stage under which its time is counted."""


class Pipeline:
    """Reconstructs one object of one picture.

    Every stage is a method that is looked up on the instance and is pure given its arguments, so that it can
    be replaced or called alone. Random numbers come from a generator of the run; the global state is left
    alone.

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

    def __copy__(self) -> Pipeline:
        """A pipeline over the very same networks, so that what is attached to them later acts in both.

        Raises:
            UserError: something is attached already, and the copy would have part of it.
        """
        if any(callable(getattr(type(self), name, None)) for name in vars(self)):
            raise UserError(
                "this pipeline is accelerated, or methods of it were replaced, which a shallow copy would "
                "have in part: take copy.deepcopy, or remove the acceleration first."
            )
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    @torch.no_grad()
    @counted
    def run(
        self,
        image: Any,
        mask: Any,
        *,
        seed: int = 0,
        pointmap: Any = None,
        formats: Sequence[str] = ("mesh",),
        progress: Progress | None = None,
        sampled: SampledStructure | None = None,
        layout: bool = True,
        picture_colors: bool = True,
    ) -> Reconstruction:
        """Reconstructs the masked object.

        Args:
            image: uint8 `[H, W, 3]`, or what `share_picture` made of one.
            mask: bool `[H, W]`; numbers are split at half of their maximum.
            seed: of this object's noise. The result depends on nothing that ran before.
            pointmap: fp32 `[H, W, 3]` camera-space points (x left, y up, z forward), NaN where unknown.
            formats: any of `mesh` and `gaussian`.
            progress: see `fastsam3d.sam3d.pipeline.timing.Progress`.
            sampled: the first stage of this very object, where `sample_structures` has run it already; its random
                numbers go on where it left them.
            layout: false where nobody needs to know how the object stands in the picture. The first stage then computes
                the same voxels from the shape alone, and the result has no pose (`Reconstruction.has_layout`). Colours
                of the small model are then not fitted to the picture, and its surface, whose decoder sees colours
                beside the shape, is the same but for traces.
            picture_colors: lay the picture's colours onto the side that it shows, for a model that takes its colours
                from the picture (`slat_color_channels`) and a result with a pose.

        Raises:
            UserError: unusable input, a format that this model has no decoder for, or a network that gives NaN.
        """
        require_float32()
        check_formats(formats, self.models, self.config.name)
        seed = as_seed(seed)
        with self.residency.running(), recording(StageClock(self.device, progress)) as clock:
            with stage("preprocess"):
                inputs = self.preprocess(image, mask, pointmap)
            if sampled is None:
                # On the CPU whatever the device is: one seed gives one object on every machine.
                generator = torch.Generator().manual_seed(seed)
                condition = self.embed_condition("sparse_structure", inputs)
                shape_alone = {} if layout else {"layout": False}
                structure = self.sample_sparse_structure(condition, generator, **shape_alone)
            else:
                structure, generator = sampled.structure, sampled.generator
                clock.add(sampled.stage_seconds)
            pose = self.decode_pose(structure.latents, inputs) if layout else NoPose()
            if layout and structure.downsample_factor != 1:
                pose = Pose(pose.rotation, pose.translation, pose.scale * structure.downsample_factor)
            condition = self.embed_condition("structured_latent", inputs)
            feats = self.sample_slat(condition, structure, generator)
            feats = self.colored_by_picture(feats, structure, pose, inputs)
            decoded = self.decode_slat(feats, structure, formats)
            projection = None
            if picture_colors and layout and self.config.slat_color_channels:
                with stage("picture_colors"):
                    decoded, projection = self.painted(decoded, pose, image, mask)
        return Reconstruction(
            mesh=decoded.get("mesh"),
            projection=projection,
            gaussian=decoded.get("gaussian"),
            pose=pose,
            structure=structure,
            feats=feats,
            seed=seed,
            stage_seconds=clock.seconds,
        )

    def share_picture(self, image: Any, pointmap: Any = None) -> SharedPicture:
        """Prepares what all objects of a picture share. The result takes the place of the image, and of the point
        map with it, in `run`, `preprocess` and `sample_structures`.

        Raises:
            UserError: an unusable image or point map.
        """
        return share_picture(image, pointmap, image_size=self.config.image_size, device=self.device)

    @torch.no_grad()
    @counted
    def sample_structures(
        self, image: Any, masks: Sequence[Any], *, seed: int | Sequence[int] = 0, progress: Progress | None = None
    ) -> list[SampledStructure]:
        """The first stage of several objects, of one picture or of several, as one batch: for `run(..., sampled=)`.

        Every object has noise of its own from the same seed, as if it were run alone; results agree with those up to
        rounding. Seconds are shared out evenly.

        Args:
            image: what `share_picture` gives, or as of `run` without a point map; a list of what it gives, one for
                each mask.
            seed: of all objects, or one for each.

        Raises:
            UserError: an unusable mask, or a result that is not finite. Then nothing is returned for any of them.
        """
        require_float32()
        several = isinstance(image, list) and all(isinstance(own, SharedPicture) for own in image)
        pictures = image if several else [image] * len(masks)
        seeds = [seed] * len(masks) if isinstance(seed, int) else seed
        with self.residency.running(), recording(StageClock(self.device, progress)) as clock:
            with stage("preprocess"):
                inputs = [self.preprocess(own, mask) for own, mask in zip(pictures, masks, strict=True)]
            with self.residency.using(EMBEDDERS["sparse_structure"]):  # once for all objects
                condition = torch.cat([self.embed_condition("sparse_structure", own) for own in inputs])
            generators = [torch.Generator().manual_seed(as_seed(own)) for own, _ in zip(seeds, masks, strict=True)]
            latents = self._sample_structure_latents(condition, generators)
            with stage("ss_decode"):
                structures = self.decode_sparse_structures(latents, generators)
        seconds = {name: value / len(masks) for name, value in clock.seconds.items()}
        return [SampledStructure(s, g, seconds) for s, g in zip(structures, generators, strict=True)]

    @contextmanager
    def twins(self, count: int) -> Iterator[list[Pipeline]]:
        """Other pipelines over the very same weights, so that several objects can run at once, each on its own.

        For the length of a `with` block. What is attached to this pipeline may attach itself to them by replacing
        this method.
        """
        networks = [self.models, *self.condition_embedders.values()]
        tensors = [t for network in networks for t in (*network.parameters(), *network.buffers())]
        yield [copy.deepcopy(self, {id(tensor): tensor for tensor in tensors}) for _ in range(count)]

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
        latents = self._sample_structure_latents(condition, [generator], layout)
        with stage("ss_decode"):
            return self.decode_sparse_structure(latents, generator)

    def _sample_structure_latents(
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

    def colored_by_picture(
        self, feats: Tensor, structure: SparseStructure, pose: Pose, inputs: ConditionInputs
    ) -> Tensor:
        """Takes colours from the picture where a model with `slat_color_channels` leaves them to it.

        Its colours are relative to the object's mean colour in the picture, which is added, and are then fitted to what
        the picture shows where voxels are seen, but brighter: they are those of the material, not of its shaded side.
        Without a layout nobody knows where voxels are seen.
        """
        channels = list(self.config.slat_color_channels)
        if not channels:
            return feats
        feats = feats.clone()
        feats[:, channels] += mean_color(inputs["image"], inputs["mask"]).to(feats.device)
        if not isinstance(pose, NoPose):
            shown = colors_shown(
                structure.coords,
                self.config.resolution,
                quaternion_to_matrix(pose.rotation).to(feats.device),
                pose.translation.to(feats.device),
                pose.scale.to(feats.device),
                inputs["image"][0],
                inputs["mask"][0],
            )
            feats[:, channels] = matched_colors(feats[:, channels], unshaded(shown.colors), shown.seen)
        return feats

    def painted(
        self, decoded: Mapping[str, Any], pose: Pose, image: Any, mask: Any
    ) -> tuple[dict[str, Any], PictureProjection | None]:
        """Lays the picture onto the side that it shows, of the surface and of the Gaussians."""
        mesh = decoded.get("mesh")
        if mesh is None or mesh.is_empty:
            return dict(decoded), None
        rotation, translation, scale = (
            part.cpu().numpy() for part in (quaternion_to_matrix(pose.rotation), pose.translation, pose.scale)
        )
        projection = project_picture(mesh, (rotation, translation, scale), *object_crop(image, mask, SIDE))
        painted = dict(decoded) | {"mesh": painted_mesh(mesh, projection)}
        if "gaussian" in decoded:
            painted["gaussian"] = painted_gaussians(decoded["gaussian"], projection)
        return painted, projection

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
