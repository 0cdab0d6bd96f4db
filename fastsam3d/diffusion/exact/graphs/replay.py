"""Replays network evaluations as recorded graphs: the host issues one command instead of some thousand kernels.

A graph reads and writes the addresses that it was recorded with, and no Python runs when it is replayed. Hence:

- *What changes* from one evaluation to the next (state, time, condition) is copied into static buffers before a replay.
  Time is a tensor on the device; a number of the host would be recorded as a constant.
- *What comes out* is copied out of the graph's buffers: a forecast may hold on to an earlier velocity.
- *What is kept for a run* (keys and values of the condition, see `KeptTensors`) is computed by one ordinary evaluation
  of every object and then written to where it was before, so that one graph serves all objects of the same shape. The
  graph is not replayed, and recorded anew, where any of it lies somewhere else.
- *Weights* that were moved or changed, or are cast to another precision, drop all graphs; this is looked at once a run.
- *Anything that goes wrong* while recording leaves the ordinary way, for good, and says so once.

How a graph is recorded and replayed is left to a `Capture`; `cuda_capture` has the real one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fastsam3d.diffusion.evaluations.whole import Evaluation, Outputs, precision_of
from fastsam3d.diffusion.sites import EvaluationState
from fastsam3d.modules.tensor_versions import place_and_version

logger = logging.getLogger(__name__)

WORTHWHILE = 4
"""Evaluations of one kind, behind us in the ordinary way and ahead of us in this run together, that a recording needs.
It costs two or three ordinary evaluations (one to warm up, one to record, and making the graph), and each replay saves
more than half of one: 62.7 ms against 25.6 ms for the first stage on an H200 (docs/full_size.md). Reckoned, not
measured. Steps that a technique may yet forecast count as ahead; what one object does not earn back the next one does.
"""


class Replayable(Protocol):
    """A recording of one call."""

    outputs: Outputs
    """Where every replay leaves its results: the same tensors each time."""

    def replay(self) -> None: ...


class Capture(Protocol):
    """Records calls of a function that reads only tensors whose addresses do not change."""

    @property
    def refusal(self) -> str | None:
        """Returns the reason why nothing can be recorded; None where it can."""

    def record(self, function: Callable[[], Outputs]) -> Replayable:
        """Records a call. Results are there after the first replay only."""

    def release(self) -> None:
        """Gives back the memory that recordings lie in; called when none is left."""


class KeptTensors(Protocol):
    """Keeps tensors over a run that a recorded graph reads, see `condition_cache.ConditionCache`."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns all kept tensors."""

    def hold(self, held: bool) -> None:
        """With `held`, keeps the tensors' addresses across runs, because recorded graphs read those addresses."""

    def start(self) -> None:
        """Begins a run."""


class _Inputs:
    """Static buffers of the shapes of an evaluation."""

    def __init__(self, like: Evaluation) -> None:
        self.shapes = like.shapes, torch.is_inference_mode_enabled()
        self.x = {name: torch.empty(v.shape, dtype=v.dtype, device=v.device) for name, v in like.x.items()}
        self.time = torch.empty(1, dtype=torch.float64, device=like.condition.device)
        self.condition = torch.empty_like(like.condition)
        self.source: Tensor | None = None  # the condition that was copied last

    def fill(self, asked: Evaluation) -> None:
        for name, buffer in self.x.items():
            buffer.copy_(asked.x[name])
        self.time.fill_(asked.time)
        if self.source is not asked.condition:
            self.condition.copy_(asked.condition)
            self.source = asked.condition


@dataclass
class _Graph:
    recording: Replayable
    read: tuple[Tensor, ...]  # tensors of others that it reads: kept alive, and compared by identity


class GraphReplay:
    """Evaluations of one stage's network, replayed where that is worth it.

    Memory, until `release`: static inputs, keys and values of the condition, and the activations of one evaluation
    (`fastsam3d.sam3d.memory.budget` counts them). Recordings are of one set of shapes at a time, and of one object:
    several at once give the card enough to do.

    Args:
        stage: its name, for messages.
        state: what the host evaluates at the moment.
        capture: records and replays.
        weights: gives the tensors of the network.
        kept: what keeps tensors for a run.
    """

    def __init__(
        self,
        stage: str,
        state: EvaluationState,
        capture: Capture,
        weights: Callable[[], Iterable[Tensor]],
        kept: Sequence[KeptTensors] = (),
    ) -> None:
        self.stage, self.state, self.capture = stage, state, capture
        self._weights, self._kept = weights, list(kept)
        self.refusal = capture.refusal
        """Why everything runs as ever, or None."""
        self.recorded = self.replayed = self.ordinary = 0
        self._graphs: dict[Hashable, _Graph] = {}
        self._inputs: _Inputs | None = None
        self._behind: Counter[Hashable] = Counter()
        self._fingerprint: tuple[Any, ...] = ()
        self._condition: Tensor | None = None
        self._fresh: set[str] = set()

    def start(self) -> None:
        """Begins a run: values that are kept for it have to be computed first."""
        self._condition = None
        self._fresh.clear()
        if self._inputs is not None:
            self._inputs.source = None

    def finish(self) -> None:
        """Ends a run. Graphs stay for the next object."""
        self.start()

    def release(self) -> None:
        """Drops all graphs and their memory."""
        recorded, self._inputs = len(self._graphs) > 0 or self._inputs is not None, None
        self._graphs.clear()
        self._behind.clear()
        for kept in self._kept:
            kept.hold(False)
        if recorded:
            self.capture.release()

    def reset_counts(self) -> None:
        """Sets the counts of `note` to zero."""
        self.recorded = self.replayed = self.ordinary = 0

    def counts(self) -> dict[str, Any]:
        """Evaluations that were replayed and that ran the ordinary way, recordings, and why nothing is recorded."""
        return {
            "replayed": self.replayed,
            "ordinary": self.ordinary,
            "recorded": self.recorded,
            "refusal": self.refusal,
        }

    def note(self) -> str:
        """Says in words how many evaluations were replayed, or why none was."""
        if self.refusal is not None:
            return f"CUDA graphs rest in {self.stage}: {self.refusal}"
        total = self.replayed + self.ordinary
        return f"CUDA graphs in {self.stage}: {self.replayed} of {total} evaluations replayed, {self.recorded} recorded"

    def run(self, asked: Evaluation) -> Outputs:
        """Returns the result of an evaluation, by a replay where there is one; it is not written to later."""
        graph = self._ready(asked)
        if graph is None or self._inputs is None:
            return self._ordinary(asked)
        self._inputs.fill(asked)
        graph.recording.replay()
        self.replayed += 1
        return tuple({name: value.clone() for name, value in part.items()} for part in graph.recording.outputs)

    def _ordinary(self, asked: Evaluation) -> Outputs:
        self.ordinary += 1
        self._behind[asked.key] += 1
        result = asked.passes(dict(asked.x), asked.time, asked.condition)
        self._fresh |= asked.branches
        present = {id(tensor) for tensor in self._tensors()}
        if any(id(tensor) not in present for graph in self._graphs.values() for tensor in graph.read):
            self.release()  # values of another shape are kept now, and nobody needs to hold the old ones as well
        return result

    def _ready(self, asked: Evaluation) -> _Graph | None:
        """Returns the graph to replay, recorded now if needed; None where the evaluation runs without one."""
        if self.refusal is not None or torch.is_grad_enabled() or len(asked.condition) > 1:
            return None
        if self._condition is not asked.condition:
            self._begin(asked.condition)
        if not asked.branches <= self._fresh:
            return None  # keys and values of this object are not there yet
        key = asked.key
        if key not in self._graphs and self._behind[key] + asked.ahead >= WORTHWHILE:
            self._record(asked)
        return self._graphs.get(key)

    def _begin(self, condition: Tensor) -> None:
        self._condition = condition
        self._fresh.clear()
        # Casts of the weights, which are kept for one precision at a time, are read from where they are, too.
        fingerprint = (precision_of(condition), *(place_and_version(t) for t in self._weights()))
        if fingerprint != self._fingerprint:
            self.release()
            self._fingerprint = fingerprint

    def _record(self, asked: Evaluation) -> None:
        state, own_time = self.state, self.state.time
        # What looks time up by its number, such as the time tables, computes from the tensor instead.
        state.time = None
        try:
            inputs = self._static(asked)
            inputs.fill(asked)
            recording = self.capture.record(lambda: asked.passes(dict(inputs.x), inputs.time, inputs.condition))
        except Exception as error:  # whatever a driver, a compiler or an allocator may raise
            reason = next(iter(str(error).splitlines()), "no reason given")
            self.refusal = f"recording failed ({type(error).__name__}: {reason}); evaluations run as ever"
            logger.warning("CUDA graphs, %s: %s", self.stage, self.refusal)
            self.release()
            for kept in self._kept:
                kept.start()  # nothing that a recording began to compute is taken for a result
            return
        finally:
            state.time = own_time
        for kept in self._kept:
            kept.hold(True)
        self.recorded += 1
        self._graphs[asked.key] = _Graph(recording, self._tensors())

    def _static(self, asked: Evaluation) -> _Inputs:
        if self._inputs is None or self._inputs.shapes != (asked.shapes, torch.is_inference_mode_enabled()):
            if self._inputs is not None:
                self.release()
            self._inputs = _Inputs(asked)
        return self._inputs

    def _tensors(self) -> tuple[Tensor, ...]:
        return tuple(tensor for kept in self._kept for tensor in kept.tensors())
