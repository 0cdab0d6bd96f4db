"""Interfaces of techniques: checked settings, the view of a sampling run, and the policies.

A *velocity policy* decides when the network runs. An *evaluation policy* decides how, for instance for which tokens.
A *voxel policy* changes the set of voxels. None of them knows a pipeline; see `fastsam3d.diffusion.hosts` for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fastsam3d.acceleration.settings import AccelerationWarning, TechniqueConfig, count_of, setting
from fastsam3d.diffusion.capabilities import (
    CAPABILITIES,
    LATENT,
    SHAPE,
    SPARSE_STRUCTURE,
    STAGES,
    STRUCTURED_LATENT,
)

__all__ = [
    "CAPABILITIES",
    "LATENT",
    "SHAPE",
    "SPARSE_STRUCTURE",
    "STAGES",
    "STRUCTURED_LATENT",
    "AccelerationWarning",
    "Evaluate",
    "EvaluationPolicy",
    "GuidedVelocity",
    "MergedVoxels",
    "Step",
    "TechniqueConfig",
    "Trajectory",
    "Velocity",
    "VelocityPolicy",
    "VoxelPolicy",
    "VoxelSet",
    "WayBack",
    "bounded",
    "count_of",
    "setting",
    "stages_setting",
]

Velocity = dict[str, Tensor]


def stages_setting(default: str = "both") -> Any:
    """The field `stages` of a technique that can act on either sampled stage."""
    return setting(default, "Sampled stages it acts on. Both: faster.", choices=("both", *STAGES))


@dataclass(frozen=True)
class Trajectory:
    """One sampling run, known before its first step.

    Attributes:
        stage: "sparse_structure" or "structured_latent".
        times: n + 1 values from noise (0) to data (1), whatever the pipeline's own direction of time.
        guided: for each of the n steps, whether guidance is on.
        shortcut: distilled mode, in which the network is told the step size.
        coords: voxels `[N, 4]` of the latent stage.
        logits: occupancy logits `[1, 1, R, R, R]` that those voxels came from, where known.
        cells: for each voxel the transformer token `[N]` it belongs to, where the stage has such a pooling.
        occupancy: decoder of a state of the first stage to occupancy logits `[B, 1, R, R, R]`, where there is one.
        layout: whether the first stage samples the layout beside the shape.
        batch: objects that are sampled together.
        edges: times at which guidance begins or ends, those of the pipeline's own interval; a run fills them in.
        offers: capabilities of the pipeline in this stage; a run fills them in.
    """

    stage: str
    times: tuple[float, ...]
    guided: tuple[bool, ...]
    shortcut: bool = False
    coords: Tensor | None = None
    logits: Tensor | None = None
    cells: Tensor | None = None
    occupancy: Callable[[Mapping[str, Tensor]], Tensor] | None = None
    layout: bool = True
    batch: int = 1
    edges: tuple[float, ...] = ()
    offers: frozenset[str] = frozenset(CAPABILITIES)

    @property
    def count(self) -> int:
        """Number of steps."""
        return len(self.guided)

    def __deepcopy__(self, memo: dict[int, Any]) -> Trajectory:
        # It never changes, and its decoder leads to the whole pipeline: copies of a policy share it.
        return self


@dataclass(frozen=True)
class Step:
    """One step of a run. `times` has n + 1 values, `guided` n."""

    index: int
    times: tuple[float, ...]
    guided: tuple[bool, ...]

    @property
    def time(self) -> float:
        """Time of the step's beginning, 0..1."""
        return self.times[self.index]

    @property
    def next_time(self) -> float:
        """Time of the step's end."""
        return self.times[self.index + 1]

    @property
    def count(self) -> int:
        """Steps of the run."""
        return len(self.guided)

    @property
    def is_last(self) -> bool:
        """Tells whether this is the last step of the run."""
        return self.index == self.count - 1

    @property
    def is_guided(self) -> bool:
        """Tells whether guidance is on."""
        return self.guided[self.index]


@dataclass
class GuidedVelocity:
    """What the network said at one state, by modality.

    Attributes:
        conditional: velocity `c` of the conditional pass; fp32 where it is kept. Where the pipeline's guidance runs the
            unconditional pass alone (strength 0 in some samplers), that one.
        delta: what guidance adds to `c`, in fp32; None where it adds nothing. For plain guidance this is `w (c - u)`.
            It contains whatever else the pipeline's guidance does, such as rescaling the guided velocity to the
            standard deviation of `c`.
        delta_is_forecast: the unconditional pass did not run and `delta` stands in for it. Policies must not learn
            from such a `delta`.
        guided: the guided velocity exactly as the pipeline itself computes it. It differs from `c + delta` by rounding
            where the pipeline uses another precision or order; a computed step then equals the pipeline's own.
    """

    conditional: Velocity
    delta: Velocity | None = None
    delta_is_forecast: bool = False
    guided: Velocity | None = None

    def combined(self) -> Velocity:
        """The velocity to integrate: `guided` where it is given, else `c + delta`."""
        if self.guided is not None:
            return self.guided
        if self.delta is None:
            return self.conditional
        return {name: c + self.delta[name] for name, c in self.conditional.items()}


class Evaluate(Protocol):
    """Runs the real network; every call is counted.

    A technique names the options that it uses in `Technique.needs`; a call with another one raises a `UserError`. Of
    `tokens`, `subset` and `layout_only` a call has one at most.

    Args of a call:
        x: the state, by modality.
        tokens: latent stage: indices `[A]` of the transformer tokens that are computed, all where absent;
            `Trajectory.cells` says which voxels they hold. The others change through the blocks as in the last
            evaluation that computed them, and their keys and values stay in view. Where a branch of the evaluation
            has no such values yet, all tokens are computed, and counted.
        subset: indices `[A]` along the token axis of the state (voxels of the latent stage, shape tokens of the
            first): the network sees these alone, as if the others did not exist. The result holds zeros for them.
        conditional_only: the unconditional pass is left out; the result has no `delta`.
        layout_only: only the layout runs, against the shape's keys and values of the last whole evaluation; the
            result has no shape.
    """

    def __call__(
        self,
        x: Velocity,
        tokens: Tensor | None = None,
        *,
        subset: Tensor | None = None,
        conditional_only: bool = False,
        layout_only: bool = False,
    ) -> GuidedVelocity: ...


class VelocityPolicy(Protocol):
    """Gives the velocity of each step of one run, by the network or by a forecast."""

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Returns the velocity to integrate from the state `x`, guidance included. Called once a step, in order."""


class EvaluationPolicy(Protocol):
    """Changes how the network is evaluated at the steps at which it is."""

    def evaluate(self, x: Velocity, step: Step, evaluate: Evaluate) -> GuidedVelocity:
        """Returns the network's output at the state `x`, by `evaluate` with options or from kept values."""


@dataclass(frozen=True)
class VoxelSet:
    """An object between the stages.

    Attributes:
        coords: voxels `[N, 4]` (batch, x, y, z) that the latent stage would work on.
        resolution: voxels a side of the grid.
        interior_coords: voxels known to lie inside `[M, 4]`, or None.
        logits: occupancy logits `[1, 1, R, R, R]`, or None.
        image: the picture `[H, W, 3]`, or None where it is not known.
        mask: the object in it, bool `[H, W]`, or None.
    """

    coords: Tensor
    resolution: int
    interior_coords: Tensor | None = None
    logits: Tensor | None = None
    image: Tensor | None = None
    mask: Tensor | None = None


class WayBack(Protocol):
    """How far voxels were shrunk, and where decoded points of the object frame belong."""

    @property
    def factor(self) -> float:
        """Voxels of the fine grid along the side of a merged one."""

    def object_points_to_fine(self, points: Tensor) -> Tensor:
        """Points `[..., 3]` decoded from the merged voxels, where they belong in the object frame."""


class MergedVoxels(Protocol):
    """Voxels that stand in for those of an object, and the way back.

    Attributes:
        coords: voxels `[M, 4]` of the same grid.
        interior_coords: voxels known to lie inside `[K, 4]`, or None where none were given.
        logits: occupancy logits `[1, 1, R, R, R]` of the new voxels, or None where none were given.
        lattice: the way back; a `fastsam3d.diffusion.maths.voxel_lattice.Lattice` is exact.
    """

    @property
    def coords(self) -> Tensor: ...

    @property
    def interior_coords(self) -> Tensor | None: ...

    @property
    def logits(self) -> Tensor | None: ...

    @property
    def lattice(self) -> WayBack: ...


class VoxelPolicy(Protocol):
    """Changes the set of voxels of an object."""

    def reduce(self, voxels: VoxelSet) -> MergedVoxels | None:
        """Fewer voxels and the way back; None leaves the object alone."""


def bounded(velocity: Mapping[str, Tensor], reference: Mapping[str, Tensor], factor: float) -> Tensor:
    """Tells whether every modality is finite and at most `factor` times as long (L2) as in `reference`.

    A bool tensor without dimensions on the tensors' device: on a GPU an answer to the host would make it wait.
    """
    # A norm is not finite as soon as one entry is not; one comparison catches both.
    within = [value.float().norm() <= factor * reference[name].float().norm() for name, value in velocity.items()]
    return torch.stack(within).all()


Key = tuple[str, int]
"""Guidance branch and item of the batch: each has a memory of its own."""


class BlockPolicy(Protocol):
    """Says when the rest of a stack is replaced by its last change.

    Attributes:
        probe: blocks at the front that always run, and whose change `reuse` is shown; 0 for none.
    """

    probe: int

    def reuse(self, key: Key, step: int, probe: dict[str, Tensor]) -> bool:
        """Tells whether the kept change replaces the rest of the stack, given the change of the probe blocks."""

    def computed(self, key: Key, step: int, change: dict[str, Tensor]) -> None:
        """Takes the change that the rest of the stack made, whenever it ran."""
