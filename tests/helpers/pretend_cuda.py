"""A CUDA device that is not there: tensors that say "cuda", are computed on the CPU, and refuse to mix with others.

PyTorch's function mode shows every call on tensors. Those marked as on the device answer so, operations between
marked and unmarked tensors fail as on a GPU (but for tensors without dimensions), and calls that would make the host
wait for the device are noted. What a compiled kernel does cannot be seen; placement and waiting can.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)
_MARK = "_pretended"
WAITS = {
    "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "argwhere", "unique", "equal",
    "masked_select", "repeat_interleave", "bincount", "allclose", "unique_consecutive", "_unique2", "isin",
}  # fmt: skip
"""Names of calls whose result depends on values: the host has to wait for the device."""


def is_marked(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.__dict__.get(_MARK, False)


def mark(x: Any) -> Any:
    """Marks a tensor, or all tensors of nested lists, tuples and dicts."""
    if isinstance(x, torch.Tensor):
        x.__dict__[_MARK] = True
    elif isinstance(x, (list, tuple)):
        for part in x:
            mark(part)
    elif isinstance(x, dict):
        for part in x.values():
            mark(part)
    return x


def _tensors(x: Any) -> Iterator[torch.Tensor]:
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, (list, tuple)):
        for part in x:
            yield from _tensors(part)
    elif isinstance(x, dict):
        for part in x.values():
            yield from _tensors(part)


def _on_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class PretendCuda(TorchFunctionMode):
    """The device, for the length of a `with` block.

    `waits` lists what made the host wait, `places` where; `crossings` counts copies to and from it, waited for or not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.places: list[str] = []
        self.crossings = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        subject = args[0] if args else None
        if name == "__get__":
            return self._property(func, args)
        if name == "__set__":
            if func.__self__.__name__ == "data":  # the tensor moves to where its new data are
                subject.__dict__[_MARK] = is_marked(args[1])
            return func(*args, **kwargs)
        marked = [is_marked(x) for x in _tensors((args, kwargs))]
        if name in ("to", "cuda", "cpu", "copy_"):
            return self._move(func, name, subject, args, kwargs)
        if name in ("numpy", "__array__") and any(marked):
            raise TypeError("can't convert a cuda tensor to numpy")
        mixed = any(marked) and any(not is_marked(x) and x.ndim > 0 for x in _tensors((args, kwargs)))
        index = name in ("__getitem__", "__setitem__")
        if mixed and not index:  # indices on the host are copied, as on a GPU
            shapes = [(tuple(x.shape), is_marked(x)) for x in _tensors((args, kwargs))]
            raise RuntimeError(f"{name}: tensors on two devices: {shapes}")
        if any(marked):
            self._note(name, args, mixed)
        placed = _on_device(kwargs.get("device"))
        if "device" in kwargs and kwargs["device"] is not None:
            kwargs["device"] = torch.device("cpu")
            if name in ("tensor", "as_tensor", "new_tensor") and placed:
                self._wait(name)
            return mark(func(*args, **kwargs)) if placed else func(*args, **kwargs)
        if name == "new_tensor" and any(marked):
            self._wait(name)
        result = func(*args, **kwargs)
        return mark(result) if any(marked) and name not in ("tolist", "item") else result

    def _wait(self, name: str) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and "/fastsam3d/" not in frame.f_code.co_filename:
            frame = frame.f_back
        self.waits.append(name)
        self.places.append(f"{frame.f_code.co_filename.rpartition('/fastsam3d/')[2]}:{frame.f_lineno}")

    def _note(self, name: str, args: Any, mixed: bool) -> None:
        by_mask = name in ("__getitem__", "__setitem__") and (
            mixed or any(x.dtype == torch.bool and x.ndim > 0 for x in _tensors(args[1]))
        )
        if name in WAITS or by_mask:
            self._wait(name)

    @staticmethod
    def _property(func: Any, args: Any) -> Any:
        result = func(*args)
        if not is_marked(args[0]):
            return result
        if isinstance(result, torch.device):
            return DEVICE
        if func.__self__.__name__ == "is_cuda":
            return True
        return mark(result) if isinstance(result, torch.Tensor) else result

    def _move(self, func: Any, name: str, subject: Any, args: Any, kwargs: Any) -> Any:
        if name == "copy_":
            if is_marked(args[1]) != is_marked(subject):
                self.crossings += 1
                if not kwargs.get("non_blocking"):
                    self._wait(name)
            return func(*args, **kwargs)
        if name == "cuda":
            return mark(subject.clone())
        target = DEVICE if is_marked(subject) else torch.device("cpu")
        rest = []
        if name == "cpu":
            target = torch.device("cpu")
        for value in args[1:]:
            if isinstance(value, (str, torch.device)):
                target = torch.device(value)
            elif isinstance(value, torch.Tensor):
                target = value.device if not is_marked(value) else DEVICE
                rest.append(value.dtype)
            else:
                rest.append(value)
        if kwargs.get("device") is not None:
            target = torch.device(kwargs["device"])
        options = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")}
        moved = func(subject, *rest, **options) if name == "to" and (rest or options) else subject
        if (target.type == "cuda") == is_marked(subject):
            return mark(moved) if is_marked(subject) else moved
        self.crossings += 1
        if not kwargs.get("non_blocking"):
            self._wait(f"{name} {target.type}")
        moved = moved.clone() if moved is subject else moved
        if target.type == "cuda":
            return mark(moved)
        moved.__dict__.pop(_MARK, None)
        return moved


@contextmanager
def pretend_cuda(monkeypatch: Any) -> Iterator[PretendCuda]:
    """The pretended device, with PyTorch's own queries of a device answered."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 0)
    with PretendCuda() as mode:
        yield mode


def place(pipeline: Any) -> Any:
    """Marks every weight and buffer of a pipeline on the CPU and lets it believe in the device."""
    for network in (*pipeline.models.values(), *pipeline.condition_embedders.values()):
        for tensor in (*network.parameters(), *network.buffers()):
            mark(tensor)
    pipeline.device = DEVICE
    return pipeline
