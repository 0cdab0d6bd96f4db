"""Reads the tensors of a PyTorch checkpoint without running anything that the file says.

The official generator files are training checkpoints: PyTorch's own safe mode refuses them because of the objects
beside the weights, and its unsafe mode calls whatever the file names. Here a name in the file gives one of

- a storage type, a dtype, or the few functions that rebuild tensors and plain containers, each behind a shell that can
  be called and nothing else (pickle's BUILD could otherwise set attributes of PyTorch's own functions);
- for every other name, `Inert`: it can be made, filled and looked at, and does nothing.

So nothing is imported, and no function runs but those of `ALLOWED`. Time and memory stay in proportion to the file.
The unpickler is the one that Python has in Python: its table of seen objects grows with their number, and not with a
number in the file. Keys must be flat: tuples in tuples, each holding the last one twice, take a few bytes in the file
and centuries to be hashed. What a hostile file can still do is to be unreadable, or to hold wrong numbers.
"""

from __future__ import annotations

import io
import pickle
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

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


def check_key(key: Any) -> None:
    """Raises UnpicklingError for a key that is a nested tuple: hashing it can take for ever."""
    if isinstance(key, tuple) and any(isinstance(part, tuple) for part in key):
        raise pickle.UnpicklingError("a key of nested tuples")


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    pairs = [(key, value) for key, value in (items.items() if isinstance(items, dict) else items)]
    for key, _ in pairs:
        check_key(key)
    return OrderedDict(pairs)


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("collections", "OrderedDict"): _ordered,
    ("torch", "Size"): torch.Size,
}
"""Functions that a file may call, by module and name. `torch.load` itself answers names of storage types."""


class TensorsOnlyUnpickler(pickle._Unpickler):
    """The unpickler described above. `torch.load` adds how storages are found."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """Returns the replacement of a global of the file: an allowed function, a dtype of torch, or else `Inert`."""
        if (module, name) in ALLOWED:
            return _Shell(ALLOWED[module, name])
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        return Inert

    def load_setitem(self) -> None:
        """Sets one entry of a dictionary, once its key is known to be flat."""
        check_key(self.stack[-2])
        pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined]

    def load_setitems(self) -> None:
        """Sets entries of a dictionary, once their keys are known to be flat. They lie on the stack since the mark."""
        for key in self.stack[::2]:
            check_key(key)
        pickle._Unpickler.load_setitems(self)  # type: ignore[attr-defined]

    def load_dict(self) -> None:
        """Makes a dictionary of what lies on the stack since the mark."""
        for key in self.stack[::2]:
            check_key(key)
        pickle._Unpickler.load_dict(self)  # type: ignore[attr-defined]

    def load_binpersid(self) -> None:
        """Finds a storage. Its description is flat, so that a message about it stays short."""
        described = self.stack[-1]
        nested = (tuple, list, dict, set, frozenset)
        if not isinstance(described, tuple) or any(isinstance(part, nested) for part in described):
            raise pickle.UnpicklingError("a storage that is described by nested values")
        pickle._Unpickler.load_binpersid(self)  # type: ignore[attr-defined]

    def refuse(self) -> None:
        """Stands for what checkpoints have no use for, and for bytes that are allocated before they are read."""
        raise pickle.UnpicklingError("an operation that checkpoints have no use for")

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.BINPERSID[0]] = load_binpersid
    for _code in (pickle.ADDITEMS, pickle.FROZENSET, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.PERSID):
        dispatch[_code[0]] = refuse


def _load(file: Any, **kwargs: Any) -> Any:
    return TensorsOnlyUnpickler(file, **kwargs).load()


def _loads(data: bytes, **kwargs: Any) -> Any:
    return _load(io.BytesIO(data), **kwargs)


TENSORS_ONLY = types.SimpleNamespace(__name__="tensors_only", Unpickler=TensorsOnlyUnpickler, load=_load, loads=_loads)
"""What `torch.load` takes as its `pickle_module`."""
