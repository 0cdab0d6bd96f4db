"""Replays network evaluations as recorded graphs: the host issues one command instead of some thousand kernels.

A graph reads and writes the addresses that it was recorded with, and no Python runs when it is replayed. Hence:

- *What changes* from one evaluation to the next (state, time, condition) is copied into static buffers before a replay.
  Time is a tensor on the device; a number of the host would be recorded as a constant.
- *What comes out* is copied out of the graph's buffers: a forecast may hold on to an earlier velocity.
- *What is kept for a run* (keys and values of the condition, see `KeptTensors`) is computed by one ordinary evaluation
  of every object and then written to where it was before, so that one graph serves all objects of the same shape. The
  graph is not replayed, and recorded anew, where any of it lies somewhere else.
- *Weights* that were moved or changed drop all graphs; this is looked at once a run.
- *Anything that goes wrong* while recording leaves the ordinary way, for good, and says so once.

How a graph is recorded and replayed is left to a `Capture`; `fastsam3d.hosts.cuda_capture` has the real one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fastsam3d.sites import EvaluationState

logger = logging.getLogger(__name__)

Outputs = tuple[dict[str, Tensor], ...]
"""Velocities by modality: of the conditional branch, and of the unconditional one where it ran."""
Passes = Callable[[dict[str, Tensor], "float | Tensor", Tensor], Outputs]
"""Runs the branches of one evaluation, `(state, time, condition)`. Time is flow time, a number or `[1]` in fp64."""

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
    """Records calls of a function that reads nothing but tensors which stay where they are."""

    @property
    def refusal(self) -> str | None:
        """Why nothing can be recorded, or None."""

    def record(self, function: Callable[[], Outputs]) -> Replayable:
        """Records a call. Results are there after the first replay only."""

    def release(self) -> None:
        """Gives back the memory that recordings lie in; called when none is left."""


class KeptTensors(Protocol):
    """What keeps tensors for a run that a graph reads, see `fastsam3d.techniques.exact.ConditionCache`."""

    def tensors(self) -> tuple[Tensor, ...]:
        """All that are kept."""

    def hold(self, held: bool) -> None:
        """With `held`, keeps them where they are beyond a run: new values of the same shape are copied there."""

    def start(self) -> None:
        """Begins a run."""


@dataclass
class _Inputs:
    """Static buffers; graphs of equal shapes share them."""

    state: dict[str, Tensor]
    time: Tensor
    condition: Tensor
    source: Tensor | None = None  # the condition that was copied last

    def fill(self, state: Mapping[str, Tensor], time: float, condition: Tensor) -> None:
        for name, buffer in self.state.items():
            buffer.copy_(state[name])
        self.time.fill_(time)
        if self.source is not condition:
            self.condition.copy_(condition)
            self.source = condition


@dataclass
class _Graph:
    inputs: _Inputs
    recording: Replayable
    read: tuple[Tensor, ...]  # tensors of others that it reads: kept alive, and compared by identity


class GraphReplay:
    """Evaluations of one stage's network, replayed where that is worth it.

    Memory, until `release`: static inputs, keys and values of the condition, and the activations of one evaluation
    (`fastsam3d.pipeline.memory` counts them).

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
        self._inputs: dict[Hashable, _Inputs] = {}
        self._behind: Counter[Hashable] = Counter()
        self._fingerprint: tuple[Any, ...] = ()
        self._condition: Tensor | None = None
        self._fresh: set[str] = set()

    def start(self) -> None:
        """Begins a run: what is kept for it has to be computed first."""
        self._condition = None
        self._fresh.clear()
        for inputs in self._inputs.values():
            inputs.source = None

    def finish(self) -> None:
        """Ends a run. Graphs stay for the next object."""
        self.start()

    def reset_counts(self) -> None:
        """Sets what `note` tells to zero."""
        self.recorded = self.replayed = self.ordinary = 0

    def note(self) -> str:
        """What was done, in words."""
        if self.refusal is not None:
            return f"CUDA graphs rest in {self.stage}: {self.refusal}"
        total = self.replayed + self.ordinary
        return f"CUDA graphs in {self.stage}: {self.replayed} of {total} evaluations replayed, {self.recorded} recorded"

    def run(
        self,
        passes: Passes,
        x: Mapping[str, Tensor],
        time: float,
        condition: Tensor,
        *,
        branches: frozenset[str],
        kind: Hashable,
        ahead: int,
    ) -> Outputs:
        """The result of `passes(x, time, condition)`, by a replay where there is one; nobody else writes to it later.

        Args:
            passes: reads nothing that changes within a run but its arguments.
            branches: guidance branches that it runs.
            kind: all else that makes it another computation, such as both branches in one pass.
            ahead: evaluations of this kind that the run may yet make.
        """
        key = (kind, branches, _surroundings(condition.device), _shapes(x), _shape(condition))
        graph = None if torch.is_grad_enabled() else self._ready(key, passes, x, time, condition, branches, ahead)
        if graph is None:
            self.ordinary += 1
            self._behind[key] += 1
            result = passes(dict(x), time, condition)
            self._fresh |= branches
            return result
        graph.inputs.fill(x, time, condition)
        graph.recording.replay()
        self.replayed += 1
        return tuple({name: value.clone() for name, value in part.items()} for part in graph.recording.outputs)

    def _ready(
        self,
        key: Hashable,
        passes: Passes,
        x: Mapping[str, Tensor],
        time: float,
        condition: Tensor,
        branches: frozenset[str],
        ahead: int,
    ) -> _Graph | None:
        """The graph to be replayed, recorded now if need be; None where the evaluation runs as ever."""
        if self.refusal is not None:
            return None
        if self._condition is not condition:
            self._begin(condition)
        if not branches <= self._fresh:
            return None  # keys and values of this object are not there yet
        graph = self._graphs.get(key)
        if graph is not None and not self._still_kept(graph.read):
            self.release()
            graph = None
        if graph is None and self._behind[key] + ahead >= WORTHWHILE:
            graph = self._record(key, passes, x, time, condition)
        return graph

    def _begin(self, condition: Tensor) -> None:
        self._condition = condition
        self._fresh.clear()
        fingerprint = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in self._weights())
        if fingerprint != self._fingerprint:
            self.release()
            self._fingerprint = fingerprint

    def _record(
        self, key: Hashable, passes: Passes, x: Mapping[str, Tensor], time: float, condition: Tensor
    ) -> _Graph | None:
        state, own_time = self.state, self.state.time
        # What looks time up by its number, such as the time tables, computes from the tensor instead.
        state.time = None
        try:
            inputs = self._static(x, condition)
            inputs.fill(x, time, condition)
            recording = self.capture.record(lambda: passes(dict(inputs.state), inputs.time, inputs.condition))
        except Exception as error:  # whatever a driver, a compiler or an allocator may raise
            self.refusal = f"recording failed ({type(error).__name__}: {_first_line(error)}); evaluations run as ever"
            logger.warning("CUDA graphs, %s: %s", self.stage, self.refusal)
            self.release()
            for kept in self._kept:
                kept.start()  # nothing that a recording began to compute is taken for a result
            return None
        finally:
            state.time = own_time
        for kept in self._kept:
            kept.hold(True)
        self.recorded += 1
        graph = self._graphs[key] = _Graph(inputs, recording, self._tensors())
        return graph

    def _static(self, x: Mapping[str, Tensor], condition: Tensor) -> _Inputs:
        shape = (_shapes(x), _shape(condition), torch.is_inference_mode_enabled())
        if shape not in self._inputs:
            state = {name: torch.empty_like(value, memory_format=torch.contiguous_format) for name, value in x.items()}
            time = torch.empty(1, dtype=torch.float64, device=condition.device)
            self._inputs[shape] = _Inputs(state, time, torch.empty_like(condition))
        return self._inputs[shape]

    def _tensors(self) -> tuple[Tensor, ...]:
        return tuple(tensor for kept in self._kept for tensor in kept.tensors())

    def _still_kept(self, read: Iterable[Tensor]) -> bool:
        present = {id(tensor) for tensor in self._tensors()}
        return all(id(tensor) in present for tensor in read)

    def release(self) -> None:
        """Drops all graphs and their memory."""
        had_any = bool(self._graphs or self._inputs)
        self._graphs.clear()
        self._inputs.clear()
        for kept in self._kept:
            kept.hold(False)
        if had_any:
            self.capture.release()


def _shape(x: Tensor) -> Hashable:
    return tuple(x.shape), x.dtype, x.device


def _shapes(x: Mapping[str, Tensor]) -> Hashable:
    return tuple((name, _shape(value)) for name, value in x.items())


def _surroundings(device: torch.device) -> Hashable:
    """Modes of PyTorch that change what is computed."""
    kind = device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return autocast, torch.is_inference_mode_enabled()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "no reason given")
