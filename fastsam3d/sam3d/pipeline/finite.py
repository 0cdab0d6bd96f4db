"""Refuses what makes a run come to nothing without a word: networks that give NaN, and another default type."""

from __future__ import annotations

import torch
from torch import Tensor

from fastsam3d.errors import UserError

IN_WORDS = {
    "ss_condition_embedder": "which encodes the picture for the first stage",
    "ss_generator": "which samples the sparse structure",
    "ss_decoder": "which decodes the sparse structure",
    "slat_condition_embedder": "which encodes the picture for the latent stage",
    "slat_generator": "which samples the structured latent",
    "slat_decoder_mesh": "which decodes the mesh",
    "slat_decoder_gs": "which decodes the Gaussians",
}
"""What each network of a pipeline does."""


def require_finite(network: str, *values: Tensor) -> None:
    """Checks what a network gave, at the end of its stage. Waits for the device once, however many tensors there are.

    Args:
        network: its name, as in `IN_WORDS`.
        values: of any shapes, on one device.

    Raises:
        UserError: a value is not finite.
    """
    # The bounds of a tensor are not finite where any of its values is not; they take no memory, as a mask would.
    bounds = [bound.float() for value in values if value.numel() for bound in value.aminmax()]
    if bounds and not torch.isfinite(torch.stack(bounds)).all():
        raise UserError(
            f"The network {network}, {IN_WORDS[network]}, gave values that are not finite: its weights are damaged or "
            "overflow in half precision. Load the weights again, or run in float32."
        )


def require_float32() -> None:
    """Checks PyTorch's default type, in which constants and noise are made.

    Raises:
        UserError: it is not float32.
    """
    found = torch.get_default_dtype()
    if found != torch.float32:
        raise UserError(
            f"PyTorch's default type is {str(found).removeprefix('torch.')}, and this pipeline computes in float32: "
            "call torch.set_default_dtype(torch.float32) before you load and run it."
        )
