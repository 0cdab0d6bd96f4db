"""Interface of an exact saving: its switch, its sites, how it attaches, what it saves, and where it nests.

A saving is one file of this folder, or any module that is imported: functions that attach, and one registration. Its
switch is `exact.NAME` in presets and settings. Hosts offer sites (`diffusion.host.Host`) and know no saving.

Values of a run live as long as the run, voxel tables until the object is done, cast weights until everything is taken
off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from fastsam3d.acceleration.patching import Patches
from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.diffusion.capabilities import STAGES
from fastsam3d.diffusion.evaluations.whole import Replay
from fastsam3d.diffusion.host import Host
from fastsam3d.diffusion.passes import Passes, WorkCount
from fastsam3d.diffusion.registry import REGISTRY
from fastsam3d.diffusion.sites import EvaluationState

GROUP = "exact"
"""Config group of the switches."""


class Nesting(IntEnum):
    """Places in the order in which wrappers are attached. The one that is attached last is the outermost."""

    WEIGHTS = 10
    """Single layers: how they multiply by their weights."""
    TABLES = 20
    """Makers of index tables."""
    OPERATORS = 30
    """Single operators."""
    MODULES = 40
    """Whole modules that are computed in another way."""
    CONDITION = 50
    """What the condition is turned into."""
    GUIDANCE = 55
    """Outside CONDITION: what the unconditional pass need not compute at all."""
    TIME = 60
    """What depends on time only."""
    TECHNIQUES = 100
    """Where techniques keep or leave out something inside the blocks. No saving has this place."""
    EVALUATIONS = 110
    """Whole evaluations."""
    PREFIX = 120
    """Outside the techniques: an evaluation of some tokens shares what it computed, too."""


class Spared(Protocol):
    """Is told what kept values spare, see `fastsam3d.diffusion.operations.Operations`."""

    def reused(self, stage: str, flops: float) -> None:
        """Counts a pass of a network of `stage` that a kept value spared."""

    def kept_pass(self, stage: str) -> None:
        """Counts an unconditional pass of a sampled stage for which a kept velocity stood in."""


class StageRun(Protocol):
    """Runs one stage, see `fastsam3d.diffusion.stage_runner.StageRunner`."""

    state: EvaluationState
    keepers: list[Any]
    replay: Replay | None


@dataclass
class PipelineTarget:
    """One pipeline, as a saving attaches to it.

    Attributes:
        host: offers the sites.
        patches: records every change.
        operations: is told what kept values spare.
        at_end: called after every whole run, also after one that failed.
        at_removal: called after everything is taken off.
        notes: lines of the report that say what this very pipeline allows, each made when the report is asked for.
        resets: called when the report's counts are set to zero.
        details: plain values for the report, by name, made when the report is asked for.
    """

    host: Host
    patches: Patches
    operations: Spared
    at_end: list[Callable[[], None]] = field(default_factory=list)
    at_removal: list[Callable[[], None]] = field(default_factory=list)
    notes: list[Callable[[], str]] = field(default_factory=list)
    resets: list[Callable[[], None]] = field(default_factory=list)
    details: dict[str, Callable[[], dict[str, Any]]] = field(default_factory=dict)


@dataclass
class StageTarget:
    """One sampled stage of a pipeline, as a saving attaches to it.

    Attributes:
        pipeline: that the stage belongs to.
        stage: its name, for the host's sites.
        kind: "sparse_structure" or "structured_latent".
        runner: runs the stage; has the state of the evaluation in progress.
        inside: techniques that are switched on and work inside the stage's network.
        policies: whether a technique decides how evaluations run.
        enabled: names of the exact savings that are switched on.
    """

    pipeline: PipelineTarget
    stage: str
    kind: str
    runner: StageRun
    inside: tuple[str, ...]
    policies: bool
    enabled: frozenset[str]

    @property
    def host(self) -> Host:
        """Offers the sites."""
        return self.pipeline.host

    @property
    def patches(self) -> Patches:
        """Records every change."""
        return self.pipeline.patches

    def keep(self, keeper: Any) -> None:
        """Lets `keeper.start()` be called at the beginning of every run, and `keeper.finish()` at its end."""
        self.runner.keepers.append(keeper)


def unchanged(count: WorkCount, passes: Passes, runs: float, steps: float) -> WorkCount:
    """Returns the counts as they are: the saving saves memory traffic or waiting, and no operation."""
    return count


@dataclass(frozen=True)
class ExactSaving:
    """A registered exact saving.

    Attributes:
        name: of its switch, `exact.NAME`.
        help: what it does to speed and to memory, as the text of the switch.
        nesting: where its wrappers are attached.
        sites: methods of `Host` that list the places where it attaches. Where a pipeline lists none, it does nothing.
        attach: attaches to a pipeline, once; None where it attaches to stages only.
        attach_stage: attaches to one sampled stage; None where it attaches to the pipeline only.
        count: `(count, passes, runs, steps) -> ` the operations that are left, see `WorkCount`.
        requires: other savings without which it rests.
        keeps: kind of memory that it fills (`Host.no_room_for`); "" where that is small.
        default: of the switch.
    """

    name: str
    help: str
    nesting: int
    sites: tuple[str, ...]
    attach: Callable[[PipelineTarget], None] | None = None
    attach_stage: Callable[[StageTarget], None] | None = None
    count: Callable[[WorkCount, Passes, float, float], WorkCount] = unchanged
    requires: tuple[str, ...] = ()
    keeps: str = ""
    default: bool = True


_SAVINGS: dict[str, ExactSaving] = {}


def register_saving(saving: ExactSaving) -> ExactSaving:
    """Adds an exact saving and its switch.

    Raises:
        ValueError: another saving has the name, or its name is no word, or a site is no method of `Host`.
    """
    if saving.name in _SAVINGS and _SAVINGS[saving.name] != saving:
        raise ValueError(f"exact saving {saving.name!r} is registered already")
    if not saving.name.isidentifier():
        raise ValueError(f"exact saving {saving.name!r}: the name of a switch is one word")
    if unknown := [site for site in saving.sites if not hasattr(Host, site)]:
        raise ValueError(f"exact saving {saving.name!r} asks for the site {unknown[0]!r}, which no host has")
    _SAVINGS[saving.name] = saving
    _declare_switches()
    return saving


def remove_saving(name: str) -> None:
    """Takes a saving and its switch out again; nothing happens where there is none."""
    if _SAVINGS.pop(name, None) is not None:
        _declare_switches()


def savings(names: Collection[str] | None = None) -> list[ExactSaving]:
    """All registered savings, or those of these names, in the order in which they are attached."""
    len(REGISTRY)  # lets the savings of this package register themselves
    chosen = _SAVINGS.values() if names is None else [s for s in _SAVINGS.values() if s.name in names]
    return sorted(chosen, key=lambda saving: (saving.nesting, saving.name))


class SwitchesConfig(TechniqueConfig):
    """Base of the settings of the group `exact`: one switch for each registered saving."""

    @property
    def switched_on(self) -> frozenset[str]:
        """Names of the savings that are switched on."""
        return frozenset(f.name for f in dataclasses.fields(self) if getattr(self, f.name))  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return _restored, (dict(vars(self)),)


def _restored(values: dict[str, bool]) -> Any:
    """The switches of a pickle. A saving that is not registered here is left out."""
    config: Any = REGISTRY[GROUP].config
    known = {f.name for f in dataclasses.fields(config)}
    return config(**{name: value for name, value in values.items() if name in known})


def _declare_switches() -> None:
    ordered = sorted(_SAVINGS.values(), key=lambda saving: (saving.nesting, saving.name))
    fields = [(saving.name, bool, setting(saving.default, saving.help)) for saving in ordered]
    config = dataclasses.make_dataclass("ExactConfig", fields, bases=(SwitchesConfig,), frozen=True)
    config.__doc__ = "Switches of the exact savings. Equal results up to rounding; memory is the only price."
    REGISTRY.replace(Technique(GROUP, config, GROUP, STAGES))
