"""CUDA graphs without CUDA: a tape of PyTorch's operations with their addresses, replayed without any Python of ours.

As in a graph, numbers of the host are constants of the tape, inputs are read where they were, and results are written
where they were. Unlike in a graph, every replay first spoils everything that the recording computed, so that whoever
was handed a buffer of the recording, or reads one that is not written, meets NaN. What would wait for the device or
copy from the host cannot be recorded, as in a graph.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

FORBIDDEN = ("_local_scalar_dense", "nonzero", "equal", "lift_fresh", "masked_select", "_unique2", "is_nonzero")


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, dict[int, torch.Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in FORBIDDEN:
            raise RuntimeError(f"{func} is not permitted when a stream is capturing")
        out = func(*args, **kwargs)
        read = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
        # Views stay where they are, and what works in place does so again.
        written = {i: t for i, t in enumerate(_tensors(out)) if t.untyped_storage().data_ptr() not in read}
        self.calls.append((func, args, kwargs, written))
        return out


class _Recording:
    def __init__(self, tape: _Tape, outputs: Any) -> None:
        self.tape, self.outputs = tape, outputs

    def spoil(self) -> None:
        for *_, written in self.tape.calls:
            for tensor in written.values():
                if tensor.is_floating_point():
                    tensor.fill_(float("nan"))

    def replay(self) -> None:
        self.spoil()
        for func, args, kwargs, written in self.tape.calls:
            results = _tensors(func(*args, **kwargs))
            for index, tensor in written.items():
                tensor.copy_(results[index])


class StandIn:
    """Takes the place of `CudaCapture`; knows how often what was asked of it."""

    made: ClassVar[list[StandIn]] = []

    refusal = None

    def __init__(self, device: Any = "cpu") -> None:
        self.recordings: list[_Recording] = []
        self.released = 0
        StandIn.made.append(self)

    def record(self, function: Any) -> _Recording:
        function()  # warms up, as on a stream of its own
        with _Tape() as tape:
            outputs = function()
        recording = _Recording(tape, outputs)
        # Nothing has run yet: results are there after the first replay only.
        recording.spoil()
        self.recordings.append(recording)
        return recording

    def release(self) -> None:
        self.recordings.clear()
        self.released += 1


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor)]
