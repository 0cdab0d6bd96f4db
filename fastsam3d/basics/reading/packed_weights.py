"""Weights stored in six or eight bits a value: how the shipped model stays small.

Large tensors are split into groups along their rows; each group has one fp16 scale and signed integers. A file holds
`<name>.packed` (uint8) and `<name>.scale` (fp16) for them, and says `bits,group,shape` in its metadata; small tensors
stay fp16 under their own name. The integers are symmetric, so that zero stays zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

GROUP = 64
"""Values that share a scale."""
SMALL = 4096
"""Tensors with fewer values stay fp16."""
FORMAT = "fastsam3d-packed-1"
_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8)


def quantize(values: Tensor, bits: int, group: int = GROUP) -> tuple[Tensor, Tensor]:
    """Signed integers and scales of a tensor.

    Args:
        values: any shape with at least one axis; rows are its first axis.
        bits: 6 or 8.
        group: values that share a scale.

    Returns:
        Integers `[groups, group]` (int16, absolute value at most `2^(bits-1) - 1`; the last group of a row is padded
        with zeros) and scales `[groups]` (fp16). Of a few clipping points, each group takes the one with the
        smallest squared error.
    """
    rows = values.detach().float().reshape(values.shape[0], -1)
    rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % group)).reshape(-1, group)
    top = 2 ** (bits - 1) - 1
    best_error = torch.full((len(rows),), torch.inf)
    best = torch.zeros(rows.shape, dtype=torch.int16)
    best_scale = torch.zeros(len(rows), dtype=torch.float16)
    for clip in _CLIPS:
        scale = (clip * rows.abs().amax(dim=1) / top).clamp(min=6e-8).half()
        integers = (rows / scale.float().unsqueeze(1)).round().clamp(-top, top)
        error = (integers * scale.float().unsqueeze(1) - rows).square().sum(dim=1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better.unsqueeze(1), integers.to(torch.int16), best)
        best_scale = torch.where(better, scale, best_scale)
    return best, best_scale


def dequantize(integers: Tensor, scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `quantize` up to rounding: fp32 of the given shape."""
    rows = (integers.float() * scale.float().unsqueeze(1)).reshape(shape[0], -1)
    count = 1
    for size in shape[1:]:
        count *= size
    return rows[:, :count].reshape(shape)


def to_bytes(integers: Tensor, bits: int) -> Tensor:
    """Signed integers as bytes: one byte each, or four six-bit integers in three bytes. Flat uint8."""
    unsigned = (integers + 2 ** (bits - 1)).to(torch.uint8).flatten()
    if bits == 8:
        return unsigned
    a, b, c, d = unsigned.reshape(-1, 4).unbind(dim=1)
    return torch.stack([(a << 2) | (b >> 4), (b << 4) | (c >> 2), (c << 6) | d], dim=1).flatten()


def from_bytes(data: Tensor, bits: int, group: int = GROUP) -> Tensor:
    """Inverse of `to_bytes`: int16 `[groups, group]`."""
    if bits == 8:
        unsigned = data
    else:
        x, y, z = data.reshape(-1, 3).unbind(dim=1)
        parts = [x >> 2, ((x & 3) << 4) | (y >> 4), ((y & 15) << 2) | (z >> 6), z & 63]
        unsigned = torch.stack(parts, dim=1).flatten()
    return unsigned.to(torch.int16).reshape(-1, group) - 2 ** (bits - 1)


def tight_group(length: int) -> int:
    """The size of groups, 32 to 96, by which a row of so many values takes the fewest bytes in eight bits."""
    return min(range(32, 97, 4), key=lambda group: -(-length // group) * (group + 2))


def pack(
    state: Mapping[str, Tensor], bits: int, *, small: int = SMALL, group: int | None = GROUP
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A state dict as tensors and metadata of a packed file.

    Args:
        bits: 6 or 8.
        small: tensors with fewer values stay fp16.
        group: values that share a scale; None takes `tight_group` of each tensor's rows.

    Raises:
        ValueError: `bits` is not 6 or 8, or a small tensor does not fit into half precision.
    """
    if bits not in (6, 8):
        raise ValueError(f"bits must be 6 or 8, not {bits}")
    tensors: dict[str, Tensor] = {}
    metadata = {"format": FORMAT}
    for name, value in state.items():
        if value.is_floating_point() and value.ndim >= 2 and value.numel() >= small:
            size = group or tight_group(value[0].numel())
            integers, scale = quantize(value.cpu(), bits, size)
            tensors[f"{name}.packed"] = to_bytes(integers, bits)
            tensors[f"{name}.scale"] = scale
            metadata[name] = ",".join(str(v) for v in (bits, size, *value.shape))
        else:
            stored = value.detach().cpu().half() if value.is_floating_point() else value.detach().cpu()
            if not torch.isfinite(stored).all():
                raise ValueError(f"{name} has values that half precision cannot hold")
            tensors[name] = stored.contiguous()
    return tensors, metadata


def unpack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Inverse of `pack`: the state dict, fp32.

    Raises:
        ValueError: the metadata names a tensor that is missing, or has another size than it says.
    """
    state = {}
    packed = {name: text for name, text in metadata.items() if name != "format"}
    for name, text in packed.items():
        try:
            bits, group, *shape = (int(v) for v in text.split(","))
            _check_packed(tensors[f"{name}.packed"], tensors[f"{name}.scale"], bits, group, shape)
            integers = from_bytes(tensors[f"{name}.packed"], bits, group)
            state[name] = dequantize(integers, tensors[f"{name}.scale"], tuple(shape))
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"{name} is damaged: {error}") from error
    hidden = {f"{name}.{part}" for name in packed for part in ("packed", "scale")}
    for name, value in tensors.items():
        if name not in hidden:
            state[name] = value.float() if value.is_floating_point() else value
    return state


def _check_packed(packed: Tensor, scale: Tensor, bits: int, group: int, shape: list[int]) -> None:
    """Raises ValueError where the metadata do not fit the bytes. Nothing is computed from metadata that do not."""
    if bits not in (6, 8) or not 4 <= group <= 4096 or group % 4:
        raise ValueError(f"{bits} bits in groups of {group} are not possible")
    if not 1 <= len(shape) <= 8 or min(shape) < 1:
        raise ValueError(f"the shape {shape[:8]} is not possible")
    groups = shape[0] * -(-math.prod(shape[1:]) // group)
    if packed.dtype != torch.uint8 or packed.numel() * 8 != groups * group * bits or scale.numel() != groups:
        raise ValueError(f"{packed.numel()} bytes and {scale.numel()} scales do not make the shape {shape}")


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file by name, unpacked where it is a packed one.

    Raises:
        ValueError: a packed tensor is damaged. Other errors are those of the safetensors library.
    """
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return unpack(tensors, metadata) if metadata.get("format") == FORMAT else tensors
