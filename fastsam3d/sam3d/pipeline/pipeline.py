"""The native single-image-to-3D pipeline: two sampled stages, a pose and a decoder.

Stage names, latents and the order of calls follow SAM 3D Objects (docs/facts.md, section S1), so that what
attaches to one pipeline attaches to the other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fastsam3d.basics.pixels import as_seed
from fastsam3d.basics.runs import counted
from fastsam3d.errors import UserError
from fastsam3d.sam3d.coloring.surface import (
    SIDE,
    PictureProjection,
    painted_gaussians,
    painted_mesh,
    project_picture,
)
from fastsam3d.sam3d.coloring.voxels import colors_shown, matched_colors, unshaded
from fastsam3d.sam3d.pipeline.finite import require_float32
from fastsam3d.sam3d.pipeline.formats import check_formats
from fastsam3d.sam3d.pipeline.pose import NoPose, Pose
from fastsam3d.sam3d.pipeline.preprocessing import ConditionInputs, SharedPicture, mean_color, object_crop
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction, SampledStructure, SparseStructure
from fastsam3d.sam3d.pipeline.stages import EMBEDDERS, Stages
from fastsam3d.sam3d.pipeline.timing import Progress, StageClock, recording, stage


class Pipeline(Stages):
    """Reconstructs one object of one picture.

    Random numbers come from a generator of the run; the global state is left alone.

    Args: see `Stages`.
    """

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
            latents = self.sample_structure_latents(condition, generators)
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
                structure.coords, self.config.resolution, pose.to_rigid(), inputs["image"][0], inputs["mask"][0]
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
        projection = project_picture(mesh, pose.to_rigid(), *object_crop(image, mask, SIDE))
        painted = dict(decoded) | {"mesh": painted_mesh(mesh, projection)}
        if "gaussian" in decoded:
            painted["gaussian"] = painted_gaussians(decoded["gaussian"], projection)
        return painted, projection
