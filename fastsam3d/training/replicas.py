"""Training in several processes, each with its own samples, whose gradients are averaged.

    torchrun --nproc-per-node 2 -m fastsam3d train structured-latent-flow --data DIR ...

On a CPU two processes of one thread each get further than one process with two threads, because the small
operations of these networks do not spread over threads. Without `torchrun` there is one process, and nothing changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import distributed, nn


class Replicas:
    """The processes of a run.

    Attributes:
        count: how many there are.
        number: which of them this is; the first writes checkpoints and logs.
    """

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.number = int(os.environ.get("RANK", "0"))
        if self.count > 1:
            distributed.init_process_group("gloo")

    @property
    def first(self) -> bool:
        """Tells whether this process writes."""
        return self.number == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the processes; all must hold the same parameters."""
        if self.count == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agreed(self, value: float) -> float:
        """The first process's `value`, so that all take the same step of the schedule and stop together."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(shared, 0)
        return float(shared)

    def close(self) -> None:
        """Ends the communication."""
        if self.count > 1:
            distributed.destroy_process_group()
