"""Deterministic procedural objects: a family, a seed and a small table of primitives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fastsam3d.errors import UserError
from fastsam3d.procedural.builder import Parts
from fastsam3d.procedural.families import furniture, household, living, things, transport, vehicles
from fastsam3d.procedural.primitives import CompiledTable

_FAMILIES = {
    "chair": (furniture.chair, "mirror"),
    "table": (furniture.table, "twofold_z"),
    "shelf": (furniture.shelf, "none"),
    "bed": (furniture.bed, "mirror"),
    "sofa": (furniture.sofa, "mirror"),
    "lamp": (furniture.lamp, "continuous_z"),
    "mug": (things.mug, "mirror"),
    "bottle": (things.bottle, "continuous_z"),
    "vase": (things.vase, "mirror"),
    "hammer": (things.hammer, "mirror"),
    "wrench": (things.wrench, "twofold_z"),
    "robot": (things.robot, "mirror"),
    "snowman": (things.snowman, "mirror"),
    "tree": (things.tree, "continuous_z"),
    "cactus": (things.cactus, "mirror"),
    "mushroom": (things.mushroom, "continuous_z"),
    "car": (vehicles.car, "mirror"),
    "truck": (vehicles.truck, "mirror"),
    "airplane": (vehicles.airplane, "mirror"),
    "rocket": (vehicles.rocket, "mirror"),
    "house": (vehicles.house, "none"),
    "lighthouse": (vehicles.lighthouse, "mirror"),
}
FAMILIES: tuple[str, ...] = tuple(_FAMILIES)
"""Families that a seed draws from. Their number and order decide what every seed makes, held-out ones too."""
_EVERYDAY = {
    "animal": (living.animal, "none"),
    "bird": (living.bird, "mirror"),
    "fish": (living.fish, "none"),
    "person": (living.person, "mirror"),
    "flower": (living.flower, "none"),
    "bowl": (household.bowl, "none"),
    "cup_and_saucer": (household.cup_and_saucer, "none"),
    "teapot": (household.teapot, "mirror"),
    "bag": (household.bag, "mirror"),
    "shoe": (household.shoe, "mirror"),
    "device": (household.device, "mirror"),
    "fruit": (household.fruit, "none"),
    "hat": (household.hat, "mirror"),
    "composite": (household.composite, "none"),
    "motorcycle": (transport.motorcycle, "none"),
    "bus": (transport.bus, "mirror"),
    "boat": (transport.boat, "none"),
}
EVERYDAY_FAMILIES: tuple[str, ...] = tuple(_EVERYDAY)
"""Families that only training draws, beside the others: nearer to what people photograph."""
EVERYDAY_SHARE = 0.55
"""Share of `training_object` that is of an everyday family."""


@dataclass
class ProceduralObject:
    """An object in its canonical frame: z up, front -y, longest half extent 0.475 around the origin.

    Attributes:
        family: one of `FAMILIES` or `EVERYDAY_FAMILIES`.
        seed: the seed that made it.
        table: float32 `[K, 17]`, see `fastsam3d.procedural.primitives`.
    """

    family: str
    seed: int
    table: np.ndarray

    @cached_property
    def compiled(self) -> CompiledTable:
        """The table as tensors for fast evaluation."""
        return CompiledTable.from_table(self.table)

    @cached_property
    def symmetry(self) -> str:
        """Pose ambiguity: "none", "mirror" (x reflection, no rotation), "twofold_z" or "continuous_z"."""
        if _axial(self.table):
            return "continuous_z"
        declared = (_FAMILIES | _EVERYDAY)[self.family][1]
        return "mirror" if declared == "continuous_z" else declared

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distance `[...]` of points `[..., 3]` in the object frame (1 = side of the voxel grid)."""
        return self.compiled.sdf(points.reshape(-1, 3).float()).reshape(points.shape[:-1])

    def color(self, points: Tensor) -> Tensor:
        """Colour `[..., 3]` in 0..1 of the part nearest to points `[..., 3]`."""
        return self.compiled.color(points.reshape(-1, 3).float()).reshape(points.shape)


def _axial(table: np.ndarray) -> bool:
    """Tells whether every primitive is a body of revolution around the z axis through the origin."""
    on_axis = np.abs(table[:, 1:3]).max() < 1e-4 and np.abs(table[:, 5:8]).max() < 1e-4
    boxes = (table[:, 0] == 0).any()
    ellipsoids = table[table[:, 0] == 2]
    round_ = len(ellipsoids) == 0 or np.abs(ellipsoids[:, 8] - ellipsoids[:, 9]).max() < 1e-4
    return bool(on_axis and not boxes and round_)


def make_object(seed: int, family: str | None = None) -> ProceduralObject:
    """Makes the object of a seed; the same arguments give the same table on every machine.

    Args:
        seed: non-negative integer; `HELD_OUT_SEED` and above are reserved for evaluation.
        family: one of `FAMILIES` or `EVERYDAY_FAMILIES`; by default one of `FAMILIES`, drawn from the seed.

    Raises:
        UserError: unknown family.
    """
    rng = np.random.default_rng([20_26, seed])
    drawn = FAMILIES[int(rng.integers(len(FAMILIES)))]
    family = drawn if family is None else family
    known = _FAMILIES | _EVERYDAY
    if family not in known:
        raise UserError(f"procedural object: unknown family {family!r}; choose one of {', '.join(known)}")
    parts = Parts()
    known[family][0](parts, rng)
    return ProceduralObject(family, seed, parts.table())


def training_object(seed: int) -> ProceduralObject:
    """Makes the training object of a seed: of any family, everyday ones for `EVERYDAY_SHARE` of the seeds.

    Evaluation keeps to `make_object`, whose seeds make the same objects as before there were everyday families.

    Args:
        seed: non-negative integer below `HELD_OUT_SEED`.
    """
    rng = np.random.default_rng([20_27, seed])
    if rng.random() >= EVERYDAY_SHARE:
        return make_object(seed)
    return make_object(seed, EVERYDAY_FAMILIES[int(rng.integers(len(EVERYDAY_FAMILIES)))])


def voxel_centers(resolution: int) -> Tensor:
    """Voxel centres `[R^3, 3]`, index order x, y, z: `(i + 0.5) / R - 0.5`."""
    axis = (torch.arange(resolution) + 0.5) / resolution - 0.5
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
