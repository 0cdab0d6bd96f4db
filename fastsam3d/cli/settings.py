"""The request that a command line of `infer` or `scene` makes."""

from __future__ import annotations

from collections.abc import Iterable

from fastsam3d.cli.composition import changes, compose, ineffective
from fastsam3d.cli.flags import Arguments
from fastsam3d.jobs.request import Request, request_from

INFER_ONLY, SCENE_ONLY = ("mask_index", "mask_path", "name"), ("image_dir", "masks", "batch", "resume")
"""Keys that one of the two commands does not look at."""


def request_of(arguments: Arguments, scene: bool = False) -> Request:
    """Composes and checks, for `infer` or for `scene`.

    Raises:
        UserError: see `compose`, and for values of the wrong kind or out of range.
    """
    values, acceleration = compose(arguments)
    by_word = {word.partition("=")[0].lstrip("+") for word in arguments.overrides}
    unused = _of_the_other(by_word | arguments.origins.keys(), scene)
    return request_from(
        values,
        acceleration,
        given=by_word,
        changed=changes(arguments),
        warnings=(*acceleration.warnings(), *ineffective(arguments, acceleration), *unused),
    )


def _of_the_other(given: Iterable[str], scene: bool) -> list[str]:
    """Warnings about keys that only the other command looks at."""
    other, keys = ("infer", INFER_ONLY) if scene else ("infer_scene", SCENE_ONLY)
    warnings = [f"{key} changes nothing here: it is for {other}." for key in keys if key in given]
    if {"mask_index", "mask_path"} <= set(given) and not scene:
        warnings.append("mask_index changes nothing, because mask_path was given.")
    if {"mask_index", "box"} <= set(given) or {"mask_index", "point"} <= set(given):
        warnings.append("mask_index changes nothing, because the object was marked.")
    unused = [key for key in ("marker", "sam_checkpoint") if key in given]
    if unused and not {"box", "point"} & set(given):
        warnings.append(f"{unused[0]} changes nothing, because there is no --box and no --point.")
    return warnings
