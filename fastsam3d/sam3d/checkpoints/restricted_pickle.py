"""Reads the tensors of a PyTorch checkpoint without running anything that the file says.

The official generator files are training checkpoints: PyTorch's own safe mode refuses them because of the objects
beside the weights, and its unsafe mode calls whatever the file names. Here a name in the file gives one of

- a storage type, a dtype, or the few functions that rebuild tensors and plain containers, each behind a shell that can
  be called and nothing else (pickle's BUILD could otherwise set attributes of PyTorch's own functions);
- for every other name, `Inert`: it can be made, filled and looked at, and does nothing.

So nothing is imported, and no function runs but those of `ALLOWED`. What a hostile file can still do is to be
unreadable, or to hold wrong numbers.
"""

from __future__ import annotations

import io
import pickle
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch


class Inert:
    """Stands for any object of a checkpoint that is not a tensor."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def __call__(self, *_args: Any, **_kwargs: Any) -> Inert:
        return Inert()

    def append(self, _value: Any) -> None:
        """Ignores the values, as all methods here do."""

    def extend(self, _values: Any) -> None:
        """Ignores the values, as all methods here do."""

    def add(self, _value: Any) -> None:
        """Ignores the values, as all methods here do."""


class _Shell:
    """Calls one function. Has no attributes that a file could change."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, _name: str, _value: Any) -> None:
        raise AttributeError("not from a file")

    def __setstate__(self, _state: Any) -> None:
        pass


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
}
"""Functions that a file may call, by module and name. `torch.load` itself answers names of storage types."""


class TensorsOnlyUnpickler(pickle.Unpickler):
    """The unpickler described above. `torch.load` adds how storages are found."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the replacement of a global of the file: an allowed function, a dtype of torch, or else `Inert`."""
        if (module, name) in ALLOWED:
            return _Shell(ALLOWED[module, name])
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        return Inert


def _load(file: Any, **kwargs: Any) -> Any:
    return TensorsOnlyUnpickler(file, **kwargs).load()


def _loads(data: bytes, **kwargs: Any) -> Any:
    return _load(io.BytesIO(data), **kwargs)


TENSORS_ONLY = types.SimpleNamespace(
    __name__="tensors_only", Unpickler=TensorsOnlyUnpickler, load=_load, loads=_loads
)
"""What `torch.load` takes as its `pickle_module`."""
