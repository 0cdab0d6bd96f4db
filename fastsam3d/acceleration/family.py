"""Families of models that can be accelerated: each brings its hosts, techniques, presets, attachment and report.

The core knows a family by its name only. Built-in families are imported when a model or a preset is first looked up.
Other packages add families with `register_family`, or add hosts and techniques to an existing family. A package that
declares an entry point in the group `fastsam3d.plugins` is imported before the first look-up.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fastsam3d.acceleration.compatibility import Rules
from fastsam3d.acceleration.registry import Registry
from fastsam3d.errors import UserError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fastsam3d.acceleration.patching import Patches

logger = logging.getLogger(__name__)

DEFAULT_FAMILY = "diffusion"
"""Family whose presets are used if no model names another family."""
BUILT_IN = {"diffusion": "fastsam3d.diffusion.family", "mllm": "fastsam3d.mllm.family"}
"""Module of each family of this package; it registers the family when it is imported."""
PLUGINS = "fastsam3d.plugins"
"""Group of entry points: modules of other packages that register families, hosts, techniques or exact savings."""


class Host(Protocol):
    """Finds the parts of one model, such as its sampler and its networks."""

    name: ClassVar[str]
    family: ClassVar[str]
    """Name of the family that it belongs to."""

    @property
    def target(self) -> Any:
        """The model that is accelerated."""

    def describe_differences(self) -> list[str]:
        """Lists the differences between the model and what the host expects, one line each."""


class Attached(Protocol):
    """All savings that are attached to one model, until the patches are restored.

    It may have an attribute `offers`: methods by name that the handle gets in addition to its own.
    """

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Returns the lock that a thread holds while the model runs: `fastsam3d.basics.runs.runs_of(model)`.

        Any other lock works too. With another lock, `accelerate` cannot refuse a call in the middle of a run of the
        same thread.
        """

    def report(self) -> Any:
        """Returns a copy of the counts since the start or the last reset."""

    def reset_report(self) -> None:
        """Sets all counts and seconds to zero."""

    def add_report(self, other: Any) -> None:
        """Adds the counts of another attachment with the same settings."""

    def release(self) -> None:
        """Frees kept memory; called after the patches are restored."""


class Family(ABC):
    """One kind of model. A subclass is registered by `register_family`."""

    name: ClassVar[str]
    presets: ClassVar[str]
    """Folder under `configs` that holds its presets."""
    rules: ClassVar[Rules]
    registry: ClassVar[Registry]

    @abstractmethod
    def find_host(self, model: Any) -> Host | None:
        """Returns the host of a model, recognised by its attributes; None if the model is of another family."""

    @abstractmethod
    def known_models(self) -> list[str]:
        """Returns the names of the models that it accelerates, for messages."""

    @abstractmethod
    def fit(self, host: Any, config: Any) -> Any:
        """Adapts the settings to this model: switches off the savings that cannot act in it.

        Args:
            host: of the model.
            config: `fastsam3d.acceleration.presets.AccelerationConfig`. The result has the same type.

        Raises:
            UserError: the model lacks what the settings need.
        """

    def notices(self, host: Any, config: Any) -> list[str]:
        """Returns warnings about savings that cannot act in this model, one line each."""
        return []

    @abstractmethod
    def attach(self, host: Any, config: Any, patches: Patches, accelerate: Callable[[Any], Any]) -> Attached:
        """Attaches everything to a model through `patches`.

        Args:
            host: of the model.
            config: its settings, as `fit` left them.
            patches: records every change. After an exception the caller restores them.
            accelerate: a function that accelerates a copy of the model with the same settings and returns the handle,
                for models that run copies of themselves.
        """


_FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> Family:
    """Adds a family, or replaces the family of the same name."""
    _FAMILIES[family.name] = family
    return family


def remove_family(name: str) -> None:
    """Removes a family of another package. Does nothing if there is no such family."""
    if name not in BUILT_IN:
        _FAMILIES.pop(name, None)


def families() -> list[Family]:
    """Returns all families, the built-in ones first."""
    load_plugins()
    for name, module in BUILT_IN.items():
        if name not in _FAMILIES:
            import_module(module)
    return [*(_FAMILIES[name] for name in BUILT_IN), *(f for n, f in _FAMILIES.items() if n not in BUILT_IN)]


def family_named(name: str) -> Family:
    """Returns the family of a name.

    Raises:
        UserError: there is no such family.
    """
    found = {family.name: family for family in families()}
    if name not in found:
        raise UserError(f"unknown family of models {name!r}: known are {', '.join(found)}")
    return found[name]


def find_host(model: Any) -> Any:
    """Returns the host of a model. It asks one family after the other.

    Raises:
        UserError: no host of any family knows such a model.
    """
    known: list[str] = []
    for family in families():
        host = family.find_host(model)
        if host is not None:
            return host
        known += family.known_models()
    raise UserError(
        f"cannot accelerate a {type(model).__module__}.{type(model).__qualname__}: known are {', '.join(known)}. "
        "Give the pipeline or model object itself, for instance fastsam3d.load_pipeline('mini')."
    )


def describe_differences(model: Any) -> list[str]:
    """Lists the differences between a model and the model that this library expects.

    They are missing attributes and changed signatures, one line each; the list is empty if there is no difference. Call
    this before `accelerate` for a model that is newer than this library.

    Raises:
        UserError: no host knows such a model.
    """
    lines: list[str] = find_host(model).describe_differences()
    return lines


@cache
def load_plugins() -> None:
    """Imports the entry points of installed packages, once. One that fails is skipped, and the log names it."""
    for entry in metadata.entry_points(group=PLUGINS):
        try:
            entry.load()
        except Exception as error:  # another package's code may raise anything
            logger.warning("the plug-in %s (%s) is skipped: %s", entry.name, entry.value, error)
