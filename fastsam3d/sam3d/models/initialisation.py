"""Builds networks without initial values, because their weights are about to be loaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

IN_PLACE = (Tensor.zero_, Tensor.fill_, Tensor.uniform_, Tensor.normal_)
"""What the functions of `torch.nn.init` that do not announce themselves call on a parameter."""


class SkipInitialisation(TorchFunctionMode):
    """Makes `torch.nn.init` leave parameters unwritten inside a `with` block, and conversions to other types too.

    Memory that nobody has written to is not taken from the machine, so that a network of billions of parameters is
    built in no time and space, until its weights are put in. Every parameter must be loaded afterwards; buffers have
    their values.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        announced = getattr(func, "__module__", None) == "torch.nn.init"
        if announced or (func in IN_PLACE and isinstance(args[0], nn.Parameter)):
            return args[0] if args else (kwargs or {})["tensor"]
        if func is Tensor.to and isinstance(args[0], nn.Parameter):
            given = (*args[1:], *(kwargs or {}).values())
            dtype = next((value for value in given if isinstance(value, torch.dtype)), None)
            device = next((value for value in given if isinstance(value, torch.device)), args[0].device)
            if dtype is not None:
                return torch.empty_like(args[0].data, dtype=dtype, device=device)
        return func(*args, **(kwargs or {}))
