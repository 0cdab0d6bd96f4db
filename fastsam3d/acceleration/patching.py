"""Changes attributes of objects of other code, and undoes every change. Only this file does so."""

from __future__ import annotations

import contextlib
import logging
import types
from collections.abc import Callable, Iterator
from typing import Any

from fastsam3d.errors import UserError

logger = logging.getLogger(__name__)

_ABSENT = object()
_REGISTRIES = ("_parameters", "_buffers", "_modules")


class _Replacement:
    """Replaces a method of one object; stored in the instance's `__dict__`.

    A copy of the instance, by `copy.deepcopy` or by pickle, must not keep the replacement, because it belongs to the
    original. The copy gets the method of its own class, or the earlier value of the attribute.
    """

    def __init__(self, function: Callable[..., Any], owner: Any, name: str, before: Any) -> None:
        self._function, self._owner, self._name, self._before = function, owner, name, before
        self.__doc__ = getattr(function, "__doc__", None)
        self.__wrapped__, self.__self__ = function, owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._before is not _ABSENT:
            import copy

            return copy.deepcopy(self._before, memo)
        twin = memo.get(id(self._owner))
        method = getattr(type(self._owner), self._name, None)
        return types.MethodType(method, twin) if twin is not None and method is not None else self

    def __reduce__(self) -> Any:
        # While the owner is read back it has no attributes of its own yet, so that its class shows through.
        return (getattr, (self._owner, self._name)) if self._before is _ABSENT else (instead_of, (self._before,))


def instead_of(before: Any) -> Any:
    """Unpickles a replacement as the attribute that it replaced."""
    return before


class Patches:
    """A stack of changed instance attributes.

    `restore` deletes an attribute that the instance did not have itself, so that the attribute of the class is visible
    as before. An attribute that the instance had gets its old value. Nothing is ever set on a class, so two objects of
    one class never influence each other.

    Args:
        alone: refuse to replace a method that other patches have replaced. This happens if two models share an object.
    """

    def __init__(self, alone: bool = False) -> None:
        self._alone = alone
        self._stack: list[tuple[Any, str, Any, Any]] = []

    def __len__(self) -> int:
        return len(self._stack)

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Sets `owner.name` to `value` until `restore`.

        Raises:
            TypeError: `name` is a parameter, buffer or submodule of a `torch.nn.Module`, or `value` would become
                one. They are not stored in the instance's `__dict__` itself.
        """
        for registry in _REGISTRIES:
            if name in vars(owner).get(registry, {}):
                raise TypeError(f"{type(owner).__name__}.{name} is registered in {registry}; patch its methods instead")
        before = vars(owner).get(name, _ABSENT)
        # Straight to the instance's `__dict__`: `nn.Module.__setattr__` would register modules and parameters.
        vars(owner)[name] = value
        self._stack.append((owner, name, before, value))

    def replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replaces method `name` of `owner` by `make(current method)` until `restore`.

        Raises:
            UserError: with `alone`, the method is replaced by other patches already.
        """
        before = vars(owner).get(name, _ABSENT)
        if self._alone and isinstance(before, _Replacement) and all(own is not before for *_, own in self._stack):
            raise UserError(
                f"this {type(owner).__name__} is part of another pipeline or model that is accelerated: remove that "
                "acceleration first, or give each its own networks by copy.deepcopy."
            )
        self.set(owner, name, _Replacement(make(getattr(owner, name)), owner, name, before))

    def restore(self) -> None:
        """Undoes all changes, the last one first. A second call does nothing."""
        while self._stack:
            owner, name, before, value = self._stack.pop()
            if vars(owner).get(name, _ABSENT) is not value:
                logger.warning(
                    "%s.%s was changed by other code after it was patched; it is restored anyway",
                    type(owner).__name__,
                    name,
                )
            if before is _ABSENT:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = before


@contextlib.contextmanager
def temporarily(owner: Any, **values: Any) -> Iterator[None]:
    """Sets instance attributes for the length of a `with` block, also when it ends by an exception."""
    patches = Patches()
    try:
        for name, value in values.items():
            patches.set(owner, name, value)
        yield
    finally:
        patches.restore()
