"""Checked settings of techniques: the values that a field allows, their meaning, and the error for other values."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastsam3d.basics.plain_yaml import short
from fastsam3d.errors import UserError


class AccelerationWarning(UserWarning):
    """Warns about a setting that is allowed but known to cost quality."""


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
    share: bool = False,
) -> Any:
    """Makes a checked field of a technique's settings.

    Args:
        default: its value if a preset does not give one.
        help: its unit, and the effect of a higher value on speed and quality.
        low, high: inclusive range of a number.
        choices: allowed texts; none: any text, for instance a path.
        share: the whole number may also be given as a share of the run's steps, above 0 and below 1; see `count_of`.
    """
    return dataclasses.field(
        default=default, metadata={"help": help, "low": low, "high": high, "choices": choices, "share": share}
    )


def count_of(value: float, steps: int) -> int:
    """Returns the number of steps, at least 1, that the value of a field with `share` means in a run of `steps` steps.

    A number below 1 is a share of the steps, rounded to the nearest whole number.
    """
    return max(1, round(value * steps)) if value < 1 else int(value)


@dataclass(frozen=True)
class TechniqueConfig:
    """Base of all settings: values are checked for type, finiteness and range when they are made."""

    @classmethod
    def group(cls) -> str:
        """Returns the name of the config group, for messages."""
        return GROUPS.get(cls, cls.__name__)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _checked(getattr(self, field.name), field, f"{self.group()}.{field.name}")
            object.__setattr__(self, field.name, value)

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Returns the help text of every field, with its range."""
        lines = {}
        for field in dataclasses.fields(cls):
            limits = _range_text(field.metadata)
            share = " Below 1: a share of the run's steps." if field.metadata.get("share") else ""
            lines[field.name] = f"{field.metadata.get('help', '')}{f' Allowed: {limits}.' if limits else ''}{share}"
        return lines


GROUPS: dict[type[TechniqueConfig], str] = {}
"""Config group by the class of its settings, filled in as techniques are registered."""


def _range_text(metadata: Mapping[str, Any]) -> str:
    if metadata.get("choices"):
        return ", ".join(str(c) for c in metadata["choices"])
    low, high = metadata.get("low"), metadata.get("high")
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low}"
    return f"{low} to {high}"


def _checked(value: Any, field: dataclasses.Field[Any], where: str) -> Any:
    default, metadata = field.default, field.metadata
    allowed = _range_text(metadata)
    way_out = f"; allowed: {allowed} (default {default})" if allowed else f" (default {default})"
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UserError(f"{where} is {short(value)}: give true or false (default {str(default).lower()})")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where} is {short(value)}: a list of numbers is needed{way_out}")
        return tuple(_checked_number(item, 0.0, metadata, f"{where}[{i}]", way_out) for i, item in enumerate(value))
    if isinstance(default, str):
        if not metadata["choices"] and not isinstance(value, str):
            raise UserError(f"{where} is {short(value)}: give text in quotes (default {default!r})")
        if metadata["choices"] and value not in metadata["choices"]:
            raise UserError(f"{where} is {short(value)}{way_out}")
        return value
    return _checked_number(value, cast(float, default), metadata, where, way_out)


def _checked_number(value: Any, default: float, metadata: Mapping[str, Any], where: str, way_out: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not _finite(value):
        raise UserError(f"{where} is {short(value)}: a finite number is needed{way_out}")
    number = float(value)
    if metadata.get("share") and 0 < number < 1:
        return number
    if isinstance(default, int):
        if number != int(number):
            kind = "a whole number, or a share below 1," if metadata.get("share") else "a whole number"
            raise UserError(f"{where} is {short(value)}: {kind} is needed{way_out}")
        number = int(number)
    low, high = metadata["low"], metadata["high"]
    if (low is not None and number < low) or (high is not None and number > high):
        raise UserError(f"{where} is {short(value)}, out of range{way_out}")
    return number


def _finite(value: numbers.Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is too large for floating point
        return False
