"""Families of models that can be accelerated: each brings its hosts, techniques, presets, attachment and report.

The core knows a family by its name only. Built-in families are imported when a model, or a preset, is asked about.
Other packages add theirs with `register_family`, or hosts and techniques of theirs to a family that is there; a package
that declares an entry point in the group `fastsam3d.plugins` is imported before the first question.
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
"""Family whose presets are meant where no model says another."""
BUILT_IN = {"diffusion": "fastsam3d.diffusion.family", "mllm": "fastsam3d.mllm.family"}
"""Module of each family of this package; it registers the family when it is imported."""
PLUGINS = "fastsam3d.plugins"
"""Group of entry points: modules of other packages that register families, hosts, techniques or exact savings."""


class Host(Protocol):
    """Knows where things are in one model."""

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

    It may have `offers`: methods by name that the handle has beside those of every family.
    """

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """The lock that a thread holds while the model runs: `fastsam3d.basics.runs.runs_of(model)`.

        Any other lock works too, and then an acceleration cannot be refused in the middle of a run of its thread."""

    def report(self) -> Any:
        """A copy of the counts since the start or the last reset."""

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
        """The host of a model, recognised by its attributes; None where it is of another family."""

    @abstractmethod
    def known_models(self) -> list[str]:
        """Names of the models that it accelerates, for messages."""

    @abstractmethod
    def fit(self, host: Any, config: Any) -> Any:
        """Adapts the settings to this model: switches off what it leaves no room for.

        Args:
            host: of the model.
            config: `fastsam3d.acceleration.presets.AccelerationConfig`; so is what is returned.

        Raises:
            UserError: the model lacks what the settings need.
        """

    def notices(self, host: Any, config: Any) -> list[str]:
        """Returns warnings about savings that cannot act in this model, one line each."""
        return []

    @abstractmethod
    def attach(
        self, host: Any, config: Any, patches: Patches, accelerate: Callable[[Any], Any]
    ) -> Attached:
        """Attaches everything to a model through `patches`.

        Args:
            host: of the model.
            config: its settings, as `fit` left them.
            patches: records every change. After an exception they take off what is there.
            accelerate: accelerates a copy of the model with the same settings, for models that run copies of
                themselves; returns the handle.
        """


_FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> Family:
    """Adds a family; one of the same name is replaced."""
    _FAMILIES[family.name] = family
    return family


def remove_family(name: str) -> None:
    """Takes a family of another package out again; nothing happens where there is none."""
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
    """A family by its name.

    Raises:
        UserError: there is none.
    """
    found = {family.name: family for family in families()}
    if name not in found:
        raise UserError(f"unknown family of models {name!r}: known are {', '.join(found)}")
    return found[name]


def find_host(model: Any) -> Any:
    """The host of a model, asked of one family after the other.

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
    """Lists the differences of a model from what this library expects: missing attributes, changed signatures.

    Ask this before `accelerate` about a model that is newer than this library. One line each; empty where all is as
    expected.

    Raises:
        UserError: no host knows such a model.
    """
    lines: list[str] = find_host(model).describe_differences()
    return lines


@cache
def load_plugins() -> None:
    """Imports the entry points of installed packages, once. One that fails is named in the log and left out."""
    for entry in metadata.entry_points(group=PLUGINS):
        try:
            entry.load()
        except Exception as error:  # another package's code may raise anything
            logger.warning("the plug-in %s (%s) is left out: %s", entry.name, entry.value, error)
