"""Compresses GLB files in one of the known ways."""

from __future__ import annotations

from fastsam3d.errors import UserError

COMPRESSIONS = ("none", "quantize", "draco")


def check_compression(kind: str) -> None:
    """Checks the name of a compression, and that its package is installed.

    Raises:
        UserError: an unknown name, or a package is missing.
    """
    if kind not in COMPRESSIONS:
        raise UserError(f"There is no compression {kind!r}: choose from {', '.join(COMPRESSIONS)}.")
    if kind == "draco":
        from fastsam3d.basics.optional import optional_module
        from fastsam3d.meshes.compression.draco import EXTRA, PURPOSE

        optional_module("DracoPy", PURPOSE, EXTRA)


def compress_glb(data: bytes, kind: str) -> bytes:
    """Compresses a GLB file.

    Args:
        data: the file.
        kind: `none`; `quantize` (KHR_mesh_quantization); `draco` (KHR_draco_mesh_compression).

    Raises:
        UserError: an unknown kind, a missing package, or the file cannot be compressed.
    """
    check_compression(kind)
    if kind == "none":
        return data
    try:
        if kind == "quantize":
            from fastsam3d.meshes.compression.quantization import quantized

            return quantized(data)
        from fastsam3d.meshes.compression.draco import draco_compressed

        return draco_compressed(data)
    except ValueError as error:
        raise UserError(f"The file cannot be compressed: {error}. Compress a file as this program writes it.") from None
