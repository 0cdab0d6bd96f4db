"""The device that a user asks for, checked before anything is loaded onto it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastsam3d.errors import UserError

if TYPE_CHECKING:
    import torch


def check_device(device: torch.device | str) -> torch.device:
    """The device, if this machine has it; of `auto` the best that it has.

    Raises:
        UserError: it is no device name, or there is no such device.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError):
        raise UserError(f"{device!r} is not a device; use auto, cpu, cuda or cuda:0.") from None
    if target.type not in ("cpu", "cuda"):
        raise UserError(f"device {device} is not supported; use auto, cpu, cuda or cuda:0.")
    if target.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (target.index or 0) >= count:
            found = f"only {count} of them" if count else "none"
            raise UserError(f"Device {device} was asked for, but PyTorch finds {found} here. Use device=cpu.")
    return target
