"""Calls of a language model: their arguments by name, and what the caller says about the visual tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastsam3d.mllm.spans import Placeholder, VisualSpan


@dataclass(frozen=True)
class Given:
    """What a caller said about the visual tokens of the next prompts.

    Attributes:
        visual: spans, see `spans.spans_of_samples`, or a `Placeholder`.
        objects: one entry a sample, for scorers that read something about the objects; None without.
        samples: number of samples in the batch, before copies for beams are made; None where it is not known.
    """

    visual: VisualSpan | Sequence[Any] | Placeholder | None = None
    objects: Sequence[Any] | None = None
    samples: int | None = None


def one_of_each(values: Tensor | None, copies: int) -> Tensor | None:
    """One row of each sample, where `copies` rows in a row belong to one sample."""
    return None if values is None else values[::copies]


def first_given(names: Sequence[str], value_of: Callable[[str], Any]) -> Any:
    """The first value that is not None; None where all are."""
    return next((value for value in map(value_of, names) if value is not None), None)


def by_name(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call by their names."""
    return dict(zip(inspect.signature(method).parameters, args, strict=False)) | kwargs if args else dict(kwargs)
