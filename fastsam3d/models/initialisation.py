"""Building networks whose weights are about to be loaded."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

IN_PLACE = (Tensor.zero_, Tensor.fill_, Tensor.uniform_, Tensor.normal_)
"""What the functions of `torch.nn.init` that do not announce themselves call on a parameter."""


class SkipInitialisation(TorchFunctionMode):
    """Inside, `torch.nn.init` leaves parameters as they are: unwritten.

    Memory that nobody has written to is not taken from the machine, so that a network of billions of parameters is
    built in no time and space, until its weights are put in. Every parameter must be loaded afterwards. Buffers, and
    parameters that are computed otherwise, have their values.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        announced = getattr(func, "__module__", None) == "torch.nn.init"
        if announced or (func in IN_PLACE and isinstance(args[0], nn.Parameter)):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
