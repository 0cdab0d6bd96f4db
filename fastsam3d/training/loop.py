"""The frame of every training stage: goes on where a run was interrupted, logs, saves, and shows how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastsam3d.training.optimization import (
    Average,
    Budget,
    LossLog,
    OptimizerGroup,
    load_checkpoint,
    save_checkpoint,
)


class TrainingLoop:
    """One run of one stage, in a folder of its own: `checkpoint.pt` and `losses.jsonl`.

        loop = TrainingLoop("decoder", folder, budget, model, optimizer, generator)
        for progress in loop.steps():
            loss, parts = ...
            loss.backward()
            optimizer.step(cosine_factor(progress))
            loop.record(parts)

    To be made when the networks have the weights that a new run starts from: where the folder holds a checkpoint, its
    state takes their place. A run that is interrupted after a checkpoint and taken up again ends with the same bytes as
    one that was not, as long as what a step computes depends on the states below and the step's number alone.

    Args:
        title: what the progress bar says.
        output: the run's folder.
        budget: length of the run; a checkpoint sets what is spent of it.
        model: networks, `model` of the checkpoint.
        optimizer: of these networks; its last gradient norm is logged.
        generator: source of the run's random numbers.
        average: of the networks, where the stage keeps one; moved by the stage, saved and taken up here.
        contents: further entries of the checkpoint, which do not change during the run.
        log_every: steps from one line of the log to the next.
        save_seconds: training time from one checkpoint to the next.
        fresh: share of a step's losses in the logged ones, which are an exponential mean since the start or the last
            resumption; 1 logs the losses of the step.
        writes: whether this process writes checkpoints, log and progress; of several, one does.
        agree: what several processes make of their own share of the budget, so that all take the same steps.
    """

    def __init__(
        self,
        title: str,
        output: str | Path,
        budget: Budget,
        model: nn.Module,
        optimizer: OptimizerGroup,
        generator: torch.Generator,
        *,
        average: Average | None = None,
        contents: Mapping[str, Any] | None = None,
        log_every: int = 10,
        save_seconds: float = 120.0,
        fresh: float = 0.02,
        writes: bool = True,
        agree: Callable[[float], float] = float,
    ) -> None:
        self.title, self.budget, self.writes = title, budget, writes
        self.model, self.optimizer, self.generator, self.average = model, optimizer, generator, average
        self.contents = dict(contents or {})
        self.log_every, self.save_seconds, self.fresh, self.agree = log_every, save_seconds, fresh, agree
        self.checkpoint = Path(output) / "checkpoint.pt"
        self.log = LossLog(Path(output) / "losses.jsonl")
        self.losses: dict[str, Tensor] = {}
        self.resumed = self._resume()

    def _resume(self) -> bool:
        """Takes up the state of the folder's checkpoint; false where there is none."""
        state = load_checkpoint(self.checkpoint)
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        if self.average is not None:
            self.average.restore(state["average"], updates=state["step"])
        self.budget.step, self.budget.spent_seconds = state["step"], state["seconds"]
        return True

    def steps(self) -> Iterator[float]:
        """The share of the run that is done, 0..1, at the beginning of every step that is left; saves at the end."""
        saved = self.budget.spent_seconds
        self.budget.begin()
        with tqdm(total=100, unit="%", desc=self.title, disable=not self.writes) as bar:
            while (progress := self.agree(self.budget.progress)) < 1:
                yield progress
                self.budget.advance()
                if not self.writes:
                    continue
                if self.budget.step % self.log_every == 0:
                    self.write_log(norm=self.optimizer.norm, **self.losses)
                    shown = {name: f"{float(value):.3f}" for name, value in self.losses.items()}
                    bar.set_postfix(shown | {"step": self.budget.step})
                bar.update(100 * self.budget.progress - bar.n)
                if self.budget.spent_seconds - saved > self.save_seconds:
                    saved = self.budget.spent_seconds
                    self.save()
        if self.writes:
            self.save()

    def record(self, losses: Mapping[str, Tensor | float | None]) -> None:
        """Takes named losses into those that are logged, once or several times a step; None was not measured."""
        for name, value in losses.items():
            if value is not None:
                new = torch.as_tensor(value).detach()
                self.losses[name] = torch.lerp(self.losses.get(name, new), new, self.fresh)

    def write_log(self, **values: float | Tensor) -> None:
        """Writes a line of the log, with the step and the seconds spent."""
        self.log.write(step=self.budget.step, seconds=self.budget.spent_seconds, **values)

    def save(self) -> None:
        """Writes the checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.budget.step,
            "seconds": self.budget.spent_seconds,
        }
        if self.average is not None:
            state["average"] = self.average.state
        save_checkpoint(self.checkpoint, state | self.contents)
