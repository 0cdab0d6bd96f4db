"""Half-precision storage of weights: cast once when a model is loaded, not at every call as under plain autocast."""

from __future__ import annotations

import torch
from torch import nn

from fastsam3d.basics.suggestions import suggested_ending
from fastsam3d.errors import UserError
from fastsam3d.modules.sparse_convolution import SubMConvolution
from fastsam3d.sam3d.models.build import EMBEDDERS

MATRICES = (nn.Linear, nn.Conv2d, nn.Conv3d, SubMConvolution)
"""Layers whose weights and biases autocast would cast at every call."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""Names of the types that the networks can compute in."""


def half_type(precision: str) -> torch.dtype | None:
    """The type of mixed precision by its name; None for float32, which mixes nothing.

    Raises:
        UserError: another name.
    """
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}{suggested_ending(str(precision), PRECISIONS)}")
    return None if precision == "float32" else getattr(torch, precision)


def store_half(name: str, network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Stores the matrices of a pipeline's network in half precision.

    Normalisations, position embeddings and buffers stay in fp32, where their arithmetic takes place. Networks that
    run under autocast give the same results as with fp32 weights: autocast would round the same numbers. The
    latent generator also carries its residual stream in `dtype`, and the latent decoders, which run outside
    autocast, become fp16 on a CUDA device, both as in the official pipeline (docs/facts.md,
    sections S1 and S10); on a CPU the decoders stay in fp32.

    Args:
        name: of the network, as in `fastsam3d.sam3d.models.build.build_networks`.
        network: changed in place.
        dtype: bfloat16 or float16.
        device: that the pipeline computes on.
    """
    if name.startswith("slat_decoder"):
        if device.type == "cuda":
            network.set_dtype(torch.float16)
        return
    for module in network.modules():
        if isinstance(module, MATRICES):
            module.to(dtype)
    if name == "slat_generator":
        network.reverse_fn.backbone.set_dtype(dtype)
    assert name in (*EMBEDDERS, "ss_generator", "ss_decoder", "slat_generator"), name
