"""Muon with matrices of one shape updated together.

Muon (K. Jordan, 2024) replaces the momentum of a weight matrix by the nearest semi-orthogonal matrix, found by a few
Newton-Schulz iterations. A network has a hundred small matrices of a handful of shapes: stacked by shape, one batched
product does the work of dozens, which on a GPU is most of the optimiser's time. `torch.optim.Muon` is the plain twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration that pushes singular values towards one (Jordan, 2024)."""
ITERATIONS = 5
MATCHED_RMS = 0.2
"""Root mean square of an update of a square matrix in units of its learning rate, as AdamW's updates have it."""


def orthogonalise(matrices: Tensor) -> Tensor:
    """Nearly semi-orthogonal matrices with the singular vectors of `matrices [S, A, B]`, in bfloat16."""
    x = matrices.bfloat16()
    transposed = x.shape[1] > x.shape[2]
    if transposed:
        x = x.transpose(1, 2)
    x = x / x.float().norm(dim=(1, 2), keepdim=True).clamp_min(1e-7).bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if transposed else x


class StackedMuon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay.

    Args:
        parameters: matrices `[A, B]`.
        lr: learning rate; updates are as large as AdamW's at the same rate.
        weight_decay: share of the weights, times the rate, that each step takes off.
        momentum: of the moving average of gradients.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.01, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every matrix that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, parameters in shapes.items():
                self._update(parameters, group["lr"], group, max(shape))
        return loss

    def _update(self, parameters: list[nn.Parameter], rate: float, group: dict[str, Any], longest: int) -> None:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        averages = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        updates = orthogonalise(torch.stack(list(ahead))).to(parameters[0].dtype).unbind(0)
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-rate * MATCHED_RMS * longest**0.5)
