"""Sizes and constants of a model, read from `configs/model/*.yaml` into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class DinoConfig:
    """Sizes of one image embedder, see `fastsam3d.sam3d.models.dino.Dino`."""

    image_size: int
    patch: int
    channels: int
    depth: int
    heads: int
    registers: int
    prenorm_features: bool


@dataclass(frozen=True)
class PointPatchConfig:
    """Sizes of the point-map embedder, see `fastsam3d.sam3d.models.point_patch.PointPatchEmbed`."""

    input_size: int
    patch: int
    channels: int
    heads: int


@dataclass(frozen=True)
class ConditionEmbedderConfig:
    """Embedders of one stage; `pointmap` is absent in the second."""

    channels: int
    hidden_multiple: int
    image: DinoConfig
    mask: DinoConfig
    pointmap: PointPatchConfig | None = None


@dataclass(frozen=True)
class SparseStructureGeneratorConfig:
    """See `fastsam3d.sam3d.models.sparse_structure_generator.SparseStructureGenerator`."""

    latent_resolution: int
    shape_channels: int
    model_channels: int
    num_blocks: int
    num_heads: int
    mlp_ratio: float
    cond_channels: int


@dataclass(frozen=True)
class SamplerConfig:
    """Steps, bend of the time grid, guidance strength, the guidance interval on 1000 t, and the size of the noise.

    `noise_scale` below 1 starts nearer to the mean of what the picture allows: truer on average, less varied.
    """

    inference_steps: int
    rescale_t: float
    strength: float
    interval: tuple[float, ...]
    noise_scale: float = 1.0


@dataclass(frozen=True)
class SparseStructureDecoderConfig:
    """See `fastsam3d.sam3d.models.sparse_structure_decoder.SparseStructureDecoder`."""

    latent_channels: int
    channels: tuple[int, ...]
    num_res_blocks: int
    num_middle_blocks: int
    patch: int


@dataclass(frozen=True)
class StructuredLatentGeneratorConfig:
    """See `fastsam3d.sam3d.models.structured_latent_generator.StructuredLatentGenerator`."""

    resolution: int
    channels: int
    model_channels: int
    num_blocks: int
    num_heads: int
    mlp_ratio: float
    cond_channels: int
    io_channels: tuple[int, ...]
    num_io_res_blocks: int


@dataclass(frozen=True)
class MeshDecoderConfig:
    """See `fastsam3d.sam3d.models.structured_latent_decoder.MeshDecoder`."""

    resolution: int
    latent_channels: int
    model_channels: int
    num_blocks: int
    num_heads: int
    window: int
    upsample_channels: tuple[int, ...]


@dataclass(frozen=True)
class GaussianDecoderConfig:
    """See `fastsam3d.sam3d.models.structured_latent_decoder.GaussianDecoder`."""

    resolution: int
    latent_channels: int
    model_channels: int
    num_blocks: int
    num_heads: int
    window: int
    gaussians: int


@dataclass(frozen=True)
class PoseConfig:
    """Affine maps from layout latents to rotation (6D), translation and log scale: `latent * std + mean`."""

    rotation_mean: tuple[float, ...]
    rotation_std: tuple[float, ...]
    translation_mean: tuple[float, ...]
    translation_std: tuple[float, ...]
    scale_mean: float
    scale_std: float
    translation_scale_mean: float
    translation_scale_std: float


@dataclass(frozen=True)
class ModelConfig:
    """Everything that a native pipeline of one size needs beside its weights. Field notes are in the YAML."""

    name: str
    resolution: int
    image_size: int
    scene_scale_over: str
    minimum_component_share: float
    downsample_ss_dist: int
    max_voxels: int
    interior_is_inside: bool
    noise_by_place: bool
    ss_condition_embedder: ConditionEmbedderConfig
    ss_generator: SparseStructureGeneratorConfig
    ss_sampler: SamplerConfig
    ss_decoder: SparseStructureDecoderConfig
    slat_condition_embedder: ConditionEmbedderConfig
    slat_generator: StructuredLatentGeneratorConfig
    slat_sampler: SamplerConfig
    slat_decoder_mesh: MeshDecoderConfig
    slat_decoder_gs: GaussianDecoderConfig | None
    slat_mean: tuple[float, ...]
    slat_std: tuple[float, ...]
    slat_color_channels: tuple[int, ...]
    pose: PoseConfig


def from_mapping(kind: type, values: Mapping[str, Any], where: str = "model") -> Any:
    """Builds dataclass `kind` from nested mappings.

    Raises:
        ValueError: a field is missing, or a key has no field; names the path.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(hints)}")
    result = {}
    for field in dataclasses.fields(kind):
        if field.name in values:
            result[field.name] = _convert(hints[field.name], values[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{where}: key {field.name!r} is missing")
    return kind(**result)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        return tuple(typing.get_args(hint)[0](v) for v in value)
    return hint(value)


def load_model_config(path: str | Path) -> ModelConfig:
    """Reads a model YAML.

    Raises:
        ValueError: the file's keys are not those of `ModelConfig`; names the path of the key.
    """
    values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    return from_mapping(ModelConfig, typing.cast(Mapping[str, Any], values))
