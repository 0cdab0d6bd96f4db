"""Looks through wrappers around a pipeline's parts, which hand on attributes and are called in the part's place."""

from __future__ import annotations

from typing import Any

from fastsam3d.errors import UserError


def owner_of(thing: Any, *methods: str) -> Any:
    """The object whose own methods these are: behind a wrapper that hands its attributes on, the object inside.

    A method calls its neighbours on its own object. One that is replaced on the wrapper would never be called.

    Raises:
        UserError: some are the wrapper's and some are those of the object inside.
    """
    owners = [_owner(thing, method) for method in methods]
    if any(owner is not owners[0] for owner in owners):
        inside = next(owner for owner in owners if owner is not thing)
        raise UserError(
            f"a {type(thing).__name__} is around a {type(inside).__name__} and has some of the methods "
            f"{', '.join(methods)} of its own, so that what is attached to one of them would not be called: give the "
            f"pipeline the {type(inside).__name__} itself while it is accelerated."
        )
    return owners[0]


def _owner(thing: Any, method: str) -> Any:
    if method in getattr(thing, "__dict__", {}):
        return thing  # somebody's replacement
    owner = getattr(getattr(thing, method, None), "__self__", thing)
    if owner is thing or isinstance(owner, type) or not hasattr(type(owner), method):
        return thing
    return _owner(owner, method)


def is_compiled(module: Any) -> bool:
    """Whether a module is compiled as a whole, by `torch.compile(module)` or `module.compile()`.

    Nothing can be attached inside: the compiled code may have been made before, and does not look again.
    """
    return (
        "_orig_mod" in getattr(module, "_modules", {})
        or getattr(module, "__dict__", {}).get("_compiled_call_impl") is not None
    )
