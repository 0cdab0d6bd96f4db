"""The numbers of the parity tests: weights and inputs from their names alone, the same on every machine."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn

MASK = 0xFFFFFFFFFFFFFFFF


def uniform(name: str, *shape: int) -> Tensor:
    """Numbers in -1..1, fp32, from a hash of the name and the position (the finaliser of splitmix64)."""
    count = math.prod(shape)
    start = (zlib.crc32(name.encode()) << 32) & MASK
    with np.errstate(over="ignore"):
        x = np.uint64(start) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    # 24 bits are exact in fp32.
    values = (x >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def fill(module: nn.Module, seed: str) -> nn.Module:
    """Sets every parameter by its name in the state dict; buffers keep what the constructor gave them.

    Gains are 1 ± 0.2, vectors and embeddings ± 0.2, matrices and kernels uniform with the variance 1 / fan-in.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = uniform(f"{seed}/{name}", *parameter.shape)
            last = name.rpartition(".")[2]
            if last == "gamma" or (last == "weight" and parameter.ndim == 1):
                values = 1 + 0.2 * values
            elif last == "weight":
                values = values * math.sqrt(3 * parameter.shape[0] / parameter.numel())
            else:
                values = 0.2 * values
            parameter.copy_(values)
    return module.eval().requires_grad_(False)


def voxels(name: str, count: int, side: int) -> Tensor:
    """Unique voxels `[N, 4]` of a connected, ragged set, int32, in lexicographic order (batch 0)."""
    noise = uniform(name, side, side, side)
    axis = torch.arange(side) - (side - 1) / 2
    distance = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    chosen = (distance + 1.5 * noise).flatten().topk(count, largest=False).indices.sort().values
    position = torch.stack([chosen // side**2, chosen // side % side, chosen % side], dim=1)
    return torch.cat([torch.zeros(count, 1, dtype=torch.int64), position], dim=1).int()
