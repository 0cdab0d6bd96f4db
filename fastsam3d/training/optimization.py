"""Parts of the training loop: optimisers, learning-rate schedule, averaging, budget, checkpoints, loss log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastsam3d.errors import UserError
from fastsam3d.training.muon import StackedMuon


class OptimizerGroup:
    """Muon for the weight matrices inside the network, AdamW for everything else, behind one interface.

    Muon's orthogonalised updates need about half the samples of AdamW on transformers of this size. Embeddings,
    norms, biases, convolutions and the layers at the network's ends keep AdamW.

    Args:
        module: network to train.
        learning_rate: AdamW's peak rate.
        matrix_learning_rate: Muon's peak rate.
        weight_decay: decoupled weight decay of both.
        keep: substrings of parameter names that stay with AdamW.
    """

    def __init__(
        self,
        module: nn.Module,
        learning_rate: float,
        matrix_learning_rate: float = 0.0,
        weight_decay: float = 0.01,
        keep: Iterable[str] = (),
    ) -> None:
        keep = tuple(keep)
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            is_matrix = parameter.ndim == 2 and min(parameter.shape) >= 32
            use_muon = matrix_learning_rate > 0 and is_matrix and not any(part in name for part in keep)
            (matrices if use_muon else others).append(parameter)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay)
        ]
        if matrices:
            self.optimizers.append(StackedMuon(matrices, matrix_learning_rate, weight_decay))
        self.peaks = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.parameters = [*others, *matrices]
        self.norm = math.nan
        """Norm of the last gradient, before clipping."""

    def step(self, factor: float, clip: float = 1.0) -> float:
        """One update at `factor` times the peak rates, none where the gradient is not finite.

        Args:
            factor: of the peak learning rates, 0..1.
            clip: norm that the gradient of all parameters together is scaled down to.

        Returns:
            the gradient's norm before clipping, which `norm` keeps.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, peak in zip(groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.norm = float(norm)
        return self.norm

    def state_dict(self) -> list[dict[str, Any]]:
        """State of each optimiser, in order."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restores what `state_dict` returned."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


class Average:
    """Exponential moving average of a module's floating-point state, with a decay that warms up."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Moves the average towards the module's present state."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        values = module.state_dict()
        floating = [name for name, value in values.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in floating], [values[name] for name in floating], 1 - decay)
        for name in values.keys() - set(floating):
            self.state[name].copy_(values[name])

    def restore(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Goes on from an average that was saved after so many updates; it stays on its device."""
        for name, value in self.state.items():
            value.copy_(state[name])
        self.updates = updates


def cosine_factor(progress: float, warmup: float = 0.02, final: float = 0.02) -> float:
    """Learning-rate factor at `progress` 0..1: linear warm-up, then one cosine down to `final`."""
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    phase = min(1.0, (progress - warmup) / (1 - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * phase))


class Budget:
    """Measures the part of a run that is done: by minutes of training, kept over interruptions, or by steps.

    Raises:
        ValueError: neither is given, or both.
    """

    def __init__(self, minutes: float | None, steps: int | None) -> None:
        if (minutes is None) == (steps is None):
            raise ValueError("give a run either minutes or steps")
        self.minutes, self.steps = minutes, steps
        self.spent_seconds = 0.0
        self.step = 0
        self._last = time.monotonic()

    def begin(self) -> None:
        """Starts the clock: earlier work, such as making data, is no training time."""
        self._last = time.monotonic()

    def advance(self) -> None:
        """Counts one step and the time since the last call."""
        now = time.monotonic()
        self.spent_seconds += now - self._last
        self._last = now
        self.step += 1

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0..1."""
        if self.minutes is None:
            done, total = float(self.step), float(self.steps or 0)
        else:
            done, total = self.spent_seconds, 60.0 * self.minutes
        return min(1.0, done / total) if total > 0 else 1.0


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` under a temporary name, then renames: an interrupted write loses nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Reads a checkpoint that `save_checkpoint` wrote, or returns None if there is none."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def require_checkpoint(path: Path, way_out: str) -> dict[str, Any]:
    """Reads a checkpoint that something else builds on.

    Raises:
        UserError: there is none; the message ends with the way out.
    """
    state = load_checkpoint(path)
    if state is None:
        raise UserError(f"There is no checkpoint at {path}: {way_out}.")
    return state


class LossLog:
    """Appends one JSON object a line: step, seconds and named losses."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def write(self, **values: float | Tensor) -> None:
        """Appends one record; tensors become numbers."""
        record = {k: round(float(v), 6) for k, v in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def mean_square(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error in fp32."""
    return (prediction.float() - target).square().mean()
