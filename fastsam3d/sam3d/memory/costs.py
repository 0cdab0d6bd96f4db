"""Bytes that the parts of a run take on the device.

Weights are counted exactly, on the meta device. Working memory follows from the networks' sizes by the constants
below, which were read off runs of the real classes with every tensor's lifetime recorded; a CUDA library's own
workspaces come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch

from fastsam3d.sam3d.models.build import build_networks
from fastsam3d.sam3d.models.config import ConditionEmbedderConfig, ModelConfig
from fastsam3d.sam3d.models.precision import store_half

# Bytes in half precision (twice as many in fp32) at the peak of a stage.
STRUCTURE_TOKEN = 31 * 2**10  # a token of width 1024: residual in fp32, feed-forward of four widths
CONTEXT_TOKEN = 8 * 2**10  # a condition token of width 1024: keys and values, and their contiguous copies
IMAGE_TOKEN = 34 * 2**10  # a token of the image embedder, width 1024
POINT_TOKEN = 11.5 * 2**10  # a point of the point-map embedder, width 512
LATENT_VOXEL = 10 * 2**10  # a voxel of the latent stage, width 1024: four to a token, tables, convolutions
GAUSSIAN_VOXEL = 21 * 2**10  # a voxel of a decoder's trunk, width 768
FINE_CHANNEL = 15.0  # a channel of a finest voxel in the mesh decoder: group normalisation in fp32, three copies
SURFACE_VOXEL = 1500  # a finest voxel during extraction: features in fp32, neighbours, corner values, corner ids
GATHERED = 1 << 27  # elements that a sparse convolution gathers at a time on a GPU
WORKSPACE = 256 * 2**20  # of cuBLAS and cuDNN


@lru_cache(maxsize=32)
def weight_bytes(config: ModelConfig, formats: tuple[str, ...], precision: str) -> Mapping[str, int]:
    """Bytes of every network that `formats` need, by name, as stored on a CUDA device."""
    sizes = {}
    with torch.device("meta"):
        for name, network in build_networks(config, formats):
            if precision != "float32":
                store_half(name, network, getattr(torch, precision), torch.device("cuda"))
            sizes[name] = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    return sizes


def working_memory(config: ModelConfig, voxels: int, precision: str) -> dict[str, float]:
    """Bytes at the peak of every stage beside the weights and a CUDA library's workspace."""
    factor = 2.0 if precision == "float32" else 1.0
    ss, slat, mesh = config.ss_generator, config.slat_generator, config.slat_decoder_mesh
    widths = [*mesh.upsample_channels]
    finest = voxels * 8 ** len(widths)
    decoded = config.resolution**3 * config.ss_decoder.channels[-1]
    context_ss = _condition_tokens(config.ss_condition_embedder)
    context_slat = _condition_tokens(config.slat_condition_embedder)
    gathered = GATHERED * 2  # of half-precision numbers
    trunk = voxels * GAUSSIAN_VOXEL * mesh.model_channels / 768
    work = {
        "ss_condition": _embedding(config.ss_condition_embedder),
        "sparse_structure": (ss.latent_resolution**3 * STRUCTURE_TOKEN + context_ss * CONTEXT_TOKEN)
        * ss.model_channels
        / 1024,
        "ss_decode": 4.0 * decoded * 2,
        "slat_condition": _embedding(config.slat_condition_embedder),
        "structured_latent": (voxels * LATENT_VOXEL + context_slat * CONTEXT_TOKEN) * slat.model_channels / 1024
        + gathered,
        "mesh_decode": max(trunk, finest * FINE_CHANNEL * widths[-1] + gathered),
        "surface": float(finest * SURFACE_VOXEL) / factor,  # in fp32 whatever the precision
        "gaussian_decode": trunk,
    }
    return {stage: factor * size for stage, size in work.items()}


def kept_condition(config: ModelConfig, precision: str) -> dict[str, int]:
    """Bytes of the condition's keys and values kept over a run, by sampled stage."""
    item = 4 if precision == "float32" else 2
    ss, slat = config.ss_generator, config.slat_generator
    streams = 2  # shape and layout have keys and values of their own
    return {
        "sparse_structure": streams
        * ss.num_blocks
        * _condition_tokens(config.ss_condition_embedder)
        * 2
        * ss.model_channels
        * item,
        "structured_latent": slat.num_blocks
        * _condition_tokens(config.slat_condition_embedder)
        * 2
        * slat.model_channels
        * item,
    }


def kept_tokens(config: ModelConfig, voxels: int, precision: str) -> float:
    """Bytes of keys and values of the latent stage's tokens, kept for evaluations of some tokens alone."""
    item = 4 if precision == "float32" else 2
    slat = config.slat_generator
    branches, cells = 2, voxels / 4
    return branches * slat.num_blocks * cells * 2 * slat.model_channels * item


def kept_by_graphs(config: ModelConfig, precision: str, condition_cache: bool) -> float:
    """Bytes that recorded evaluations of the first stage keep from object to object.

    They are the activations of both branches, the condition, and its keys and values.
    """
    item = 4 if precision == "float32" else 2
    ss, tokens = config.ss_generator, _condition_tokens(config.ss_condition_embedder)
    activations = 2 * ss.latent_resolution**3 * STRUCTURE_TOKEN * item / 2
    # Keys and values are made inside the graph where they are not kept.
    inside = 0.0 if condition_cache else tokens * CONTEXT_TOKEN * item / 2
    kept = kept_condition(config, precision)["sparse_structure"] if condition_cache else 0.0
    return (activations + inside) * ss.model_channels / 1024 + 4 * tokens * config.ss_condition_embedder.channels + kept


def _condition_tokens(config: ConditionEmbedderConfig) -> int:
    tokens = 0
    for part in (config.image, config.mask):
        tokens += 2 * (1 + (part.image_size // part.patch) ** 2 + (part.registers if part.prenorm_features else 0))
    if config.pointmap is not None:
        tokens += 2 * (config.pointmap.input_size // config.pointmap.patch) ** 2
    return tokens


def _embedding(config: ConditionEmbedderConfig) -> float:
    image = config.image
    tokens = (image.image_size // image.patch) ** 2 + 1 + image.registers
    largest = tokens * IMAGE_TOKEN * image.channels / 1024
    if config.pointmap is not None:
        points = config.pointmap.input_size**2 * (1 + 1 / config.pointmap.patch**2)
        largest = max(largest, points * POINT_TOKEN * config.pointmap.channels / 512)
    return largest + _condition_tokens(config) * config.channels * 4 * 2  # the parts, and their concatenation
