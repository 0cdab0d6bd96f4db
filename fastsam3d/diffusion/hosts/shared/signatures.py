"""Signatures of a pipeline's methods, read from their classes."""

from __future__ import annotations

import inspect
from typing import Any


def named_arguments(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call by name, defaults included, and those that the method collects by name itself."""
    call = signature.bind(*args, **kwargs)
    call.apply_defaults()
    collected = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    return {**call.arguments, **(call.arguments[collected[0]] if collected else {})}


def class_signature(owner: Any, name: str) -> inspect.Signature | None:
    """The signature of method `name` of `owner`'s class, without `self`; None where there is no such function.

    An instance may carry a compiled or an already replaced method, whose signature says nothing: `(*args, **kwargs)`.
    The instance's attribute is read only where the class has no such method.
    """
    method = getattr(type(owner), name, None)
    if not callable(method):
        value = getattr(owner, name, None)
        return inspect.signature(value) if callable(value) else None
    signature = inspect.signature(method)
    kind = inspect.getattr_static(type(owner), name)
    # A class method is bound to its class already; a static one has no `self`.
    if isinstance(kind, staticmethod | classmethod):
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])
