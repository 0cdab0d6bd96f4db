"""Builds the networks of a native pipeline from a `ModelConfig`, without weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from torch import nn

from fastsam3d.sam3d.models.condition_embedder import IMAGE_INPUTS, MASK_INPUTS, POINTMAP_INPUTS, ConditionEmbedder
from fastsam3d.sam3d.models.config import ConditionEmbedderConfig, ModelConfig, SamplerConfig
from fastsam3d.sam3d.models.dino import Dino
from fastsam3d.sam3d.models.flow_matching import ClassifierFreeGuidance, FlowMatching, ShortCut
from fastsam3d.sam3d.models.point_patch import PointPatchEmbed
from fastsam3d.sam3d.models.sparse_structure_decoder import SparseStructureDecoder
from fastsam3d.sam3d.models.sparse_structure_generator import SparseStructureGenerator

EMBEDDERS = ("ss_condition_embedder", "slat_condition_embedder")
"""Networks that a pipeline keeps beside its `models`."""


def build_condition_embedder(config: ConditionEmbedderConfig) -> ConditionEmbedder:
    """The condition embedder of one stage, inputs in the official order."""
    embedders: list[tuple[nn.Module, tuple[tuple[str, str], ...]]] = [
        (Dino(**asdict(config.image)), IMAGE_INPUTS),
        (Dino(**asdict(config.mask)), MASK_INPUTS),
    ]
    if config.pointmap is not None:
        embedders.append((PointPatchEmbed(**asdict(config.pointmap)), POINTMAP_INPUTS))
    return ConditionEmbedder(embedders, config.channels, config.hidden_multiple)


def _guided(backbone: nn.Module, sampler: SamplerConfig) -> ClassifierFreeGuidance:
    return ClassifierFreeGuidance(backbone, sampler.strength, (sampler.interval[0], sampler.interval[1]))


def build_ss_generator(config: ModelConfig) -> ShortCut:
    """The sparse-structure generator with its sampler."""
    guided = _guided(SparseStructureGenerator(**asdict(config.ss_generator)), config.ss_sampler)
    return ShortCut(guided, config.ss_sampler.inference_steps, config.ss_sampler.rescale_t)


def build_slat_generator(config: ModelConfig) -> FlowMatching:
    """The structured-latent generator with its sampler."""
    from fastsam3d.sam3d.models.structured_latent_generator import StructuredLatentGenerator

    guided = _guided(StructuredLatentGenerator(**asdict(config.slat_generator)), config.slat_sampler)
    return FlowMatching(guided, config.slat_sampler.inference_steps, config.slat_sampler.rescale_t)


def build_networks(
    config: ModelConfig, formats: tuple[str, ...] = ("mesh", "gaussian")
) -> Iterator[tuple[str, nn.Module]]:
    """Every network that `formats` need, one after the other, under the names that upstream uses.

    A caller may convert or move each before the next is built: then only one is ever there in full precision.
    First the models (`ss_generator`, `ss_decoder`, `slat_generator`, and as asked for and configured
    `slat_decoder_mesh` and `slat_decoder_gs`), then the condition embedders of `EMBEDDERS`.
    """
    yield from _models(config, formats)
    yield "ss_condition_embedder", build_condition_embedder(config.ss_condition_embedder)
    yield "slat_condition_embedder", build_condition_embedder(config.slat_condition_embedder)


def _models(config: ModelConfig, formats: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    from fastsam3d.sam3d.models.structured_latent_decoder import GaussianDecoder, MeshDecoder

    yield "ss_generator", build_ss_generator(config)
    yield "ss_decoder", SparseStructureDecoder(**asdict(config.ss_decoder))
    yield "slat_generator", build_slat_generator(config)
    if "mesh" in formats:
        yield "slat_decoder_mesh", MeshDecoder(**asdict(config.slat_decoder_mesh))
    if "gaussian" in formats and config.slat_decoder_gs is not None:
        yield "slat_decoder_gs", GaussianDecoder(**asdict(config.slat_decoder_gs))


def build_models(config: ModelConfig, formats: tuple[str, ...] = ("mesh", "gaussian")) -> nn.ModuleDict:
    """The models of `build_networks`."""
    return nn.ModuleDict(dict(_models(config, formats)))


def build_condition_embedders(config: ModelConfig) -> dict[str, nn.Module]:
    """The condition embedders of `build_networks`."""
    return {
        "ss_condition_embedder": build_condition_embedder(config.ss_condition_embedder),
        "slat_condition_embedder": build_condition_embedder(config.slat_condition_embedder),
    }
