"""The native single-image-to-3D pipeline: two sampled stages, a pose and a decoder.

Stage names, latents and the order of calls follow SAM 3D Objects (docs/facts.md, section S1). So a saving that attaches
to one pipeline attaches to the other, too.
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

    Random numbers come from a generator of the run; the global random state does not change.

    Args: see `Stages`.
    """

    def __copy__(self) -> Pipeline:
        """Returns a pipeline with the same network objects. A saving that is attached to them later acts in both.

        Raises:
            UserError: a saving is attached already, and the copy would have only a part of it.
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
            image: uint8 `[H, W, 3]`, or the result of `share_picture`.
            mask: bool `[H, W]`; numbers are compared with half of their maximum.
            seed: seed of this object's noise. The result does not depend on earlier runs.
            pointmap: fp32 `[H, W, 3]` camera-space points (x left, y up, z forward), NaN where unknown.
            formats: any of `mesh` and `gaussian`.
            progress: see `fastsam3d.sam3d.pipeline.timing.Progress`.
            sampled: the first stage of this object, if `sample_structures` has run it already. The random numbers
                continue from there.
            layout: false if the pose of the object is not needed. Then the first stage computes the same voxels from
                the shape alone, and the result has no pose (`Reconstruction.has_layout`). Colours of the small model
                are then not fitted to the picture. Its surface has tiny differences, because its decoder sees the
                colours, too.
            picture_colors: lay the picture's colours onto the side that it shows, for a model that takes its colours
                from the picture (`slat_color_channels`) and a result with a pose.

        Raises:
            UserError: the input cannot be used, the model has no decoder for a format, or a network gives NaN.
        """
        require_float32()
        check_formats(formats, self.models, self.config.name)
        seed = as_seed(seed)
        with self.residency.running(), recording(StageClock(self.device, progress)) as clock:
            with stage("preprocess"):
                inputs = self.preprocess(image, mask, pointmap)
            if sampled is None:
                # On the CPU for every device, so that a seed gives the same object on every machine.
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
        """Computes the first stage of several objects, of one picture or several, as one batch: for `run(sampled=)`.

        Every object has its own noise from the same seed, as in a run alone, and its results are the same up to
        rounding. Seconds are divided equally between the objects.

        Args:
            image: the result of `share_picture`, or an image without a point map, as for `run`; or a list of such
                results, one for each mask.
            seed: seed of all objects, or a list with one for each.

        Raises:
            UserError: a mask cannot be used, or a result is not finite. Then no object gets a result.
        """
        require_float32()
        several = isinstance(image, list) and all(isinstance(own, SharedPicture) for own in image)
        pictures = image if several else [image] * len(masks)
        seeds = list(seed) if isinstance(seed, Sequence) else [seed] * len(masks)
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
        """Gives more pipelines with the same weights for a `with` block, so that several objects can run at once.

        An acceleration of this pipeline may replace this method, to attach itself to these pipelines, too.
        """
        networks = [self.models, *self.condition_embedders.values()]
        tensors = [t for network in networks for t in (*network.parameters(), *network.buffers())]
        yield [copy.deepcopy(self, {id(tensor): tensor for tensor in tensors}) for _ in range(count)]

    def colored_by_picture(
        self, feats: Tensor, structure: SparseStructure, pose: Pose, inputs: ConditionInputs
    ) -> Tensor:
        """Takes colours from the picture, for a model with `slat_color_channels`.

        The colours of such a model are relative to the object's mean colour in the picture. This mean is added. Then
        the colours are fitted to the picture where voxels are seen. They are made brighter than the picture, because
        they belong to the material and not to its shaded surface. Without a layout it is not known which voxels are
        seen.
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
        """Lays the picture onto the side that it shows, both of the surface and of the Gaussians."""
        mesh = decoded.get("mesh")
        if mesh is None or mesh.is_empty:
            return dict(decoded), None
        projection = project_picture(mesh, pose.to_rigid(), *object_crop(image, mask, SIDE))
        painted = dict(decoded) | {"mesh": painted_mesh(mesh, projection)}
        if "gaussian" in decoded:
            painted["gaussian"] = painted_gaussians(decoded["gaussian"], projection)
        return painted, projection
