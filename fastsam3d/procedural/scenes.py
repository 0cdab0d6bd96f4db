"""Scenes: several objects standing on a ground, seen by one camera, with exact poses, masks and points.

World frame: z up, ground at z = 0, the camera on the side of -y.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fastsam3d.procedural.cameras import Camera, look_at_rotation
from fastsam3d.procedural.objects import FAMILIES, ProceduralObject, make_object
from fastsam3d.procedural.samples import ObjectPose
from fastsam3d.procedural.shading import Light
from fastsam3d.procedural.tracing import TracedObject

_LAYOUT_TRIES = 60
_MINIMUM_GAP = 0.12
_FILL = 0.82  # share of the frame that the objects may take
_RELATIVE_SIZE = {
    "chair": 1.0,
    "table": 1.15,
    "shelf": 1.3,
    "bed": 1.5,
    "sofa": 1.4,
    "lamp": 1.0,
    "mug": 0.6,
    "bottle": 0.75,
    "vase": 0.8,
    "hammer": 0.8,
    "wrench": 0.75,
    "robot": 1.0,
    "snowman": 1.1,
    "tree": 1.4,
    "cactus": 0.8,
    "mushroom": 0.7,
    "car": 1.2,
    "truck": 1.4,
    "airplane": 1.3,
    "rocket": 1.3,
    "house": 1.5,
    "lighthouse": 1.5,
}


@dataclass(frozen=True)
class PlacedObject:
    """An object in the world: p_world = (p_obj * scale) @ turn + position.

    Attributes:
        traced: the object with its distance grid.
        turn: `[3, 3]` rotation about z (row vectors).
        position: `[3]` of the object frame's origin.
        scale: world units per object unit.
        radius: of the circle around the footprint, world units.
    """

    traced: TracedObject
    turn: np.ndarray
    position: np.ndarray
    scale: float
    radius: float

    @property
    def object(self) -> ProceduralObject:
        """The object itself."""
        return self.traced.object


@dataclass(frozen=True)
class Scene:
    """Objects, camera and light.

    Attributes:
        objects: the placed objects.
        view: world to camera, `p_cam = p_world @ view.rotation + view.translation`; its scale is 1.
        light: distant light in the world frame.
        colors: ground, horizon and sky colours `[3, 3]`.
    """

    objects: list[PlacedObject]
    view: Camera
    light: Light
    colors: np.ndarray = field(repr=False)

    def camera_of(self, index: int) -> Camera:
        """Camera with the pose of one object."""
        placed = self.objects[index]
        return Camera(
            placed.turn @ self.view.rotation,
            placed.position @ self.view.rotation + self.view.translation,
            placed.scale,
            self.view.half_tangent,
        )

    @property
    def poses(self) -> list[ObjectPose]:
        """Poses of all objects in the camera frame."""
        return [ObjectPose.of_camera(self.camera_of(index)) for index in range(len(self.objects))]


def make_scene(seed: int, count: int = 3, families: tuple[str, ...] | None = None) -> Scene:
    """The scene of a seed.

    Footprints never overlap. Object i is `make_object(seed + i, family)`.

    Args:
        seed: from `HELD_OUT_SEED` on for evaluation.
        count: number of objects, at least 1.
        families: families to take in this order; by default drawn without repetition as far as possible.
    """
    rng = np.random.default_rng([13, seed, count])
    if families is None:
        order = rng.permutation(len(FAMILIES))
        families = tuple(FAMILIES[order[index % len(FAMILIES)]] for index in range(count))
    objects: list[PlacedObject] = []
    for index in range(count):
        traced = TracedObject.prepare(make_object(seed + index, families[index]))
        objects.append(_place(rng, traced, objects))
    middle = np.mean([placed.position * [1, 1, 0] for placed in objects], axis=0)
    objects = [PlacedObject(o.traced, o.turn, o.position - middle, o.scale, o.radius) for o in objects]
    azimuth = np.deg2rad(rng.uniform(-140, -100) if rng.random() < 0.5 else rng.uniform(100, 140)) / 2
    light = Light(np.array([np.sin(azimuth) * 0.7, -np.cos(azimuth) * 0.7, 0.714]), 0.42)
    return Scene(objects, _frame(rng, objects), light, _colors(rng))


def _place(rng: np.random.Generator, traced: TracedObject, others: list[PlacedObject]) -> PlacedObject:
    yaw = np.deg2rad(rng.uniform(-50, 50))
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
    scale = _RELATIVE_SIZE[traced.object.family] * rng.uniform(0.9, 1.1)
    surface = traced.surface_points()
    radius = float(np.linalg.norm(surface[:, :2], axis=1).max() * scale)
    height = -float(surface[:, 2].min()) * scale
    reach = 0.0
    while True:  # the disc of candidates grows until there is room, so the loop ends
        for _ in range(_LAYOUT_TRIES if others else 1):
            angle, distance = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.uniform())
            spot = np.array([distance * np.cos(angle) * 1.5, distance * np.sin(angle), height])
            apart = [np.linalg.norm((spot - other.position)[:2]) - radius - other.radius for other in others]
            # an object in front of another hides it unless it stands aside
            aside = [abs(spot[0] - other.position[0]) - 0.6 * (radius + other.radius) for other in others]
            if min(apart, default=1.0) > _MINIMUM_GAP and min(aside, default=1.0) > 0:
                return PlacedObject(traced, turn, spot, scale, radius)
        reach += 0.25


def _frame(rng: np.random.Generator, objects: list[PlacedObject]) -> Camera:
    """A camera that looks at the middle of the scene, so far away that every object is in the frame."""
    rotation = look_at_rotation(np.deg2rad(rng.uniform(-20, 20)), np.deg2rad(rng.uniform(18, 32)), 0.0)
    points = np.concatenate(
        [(placed.traced.surface_points() * placed.scale) @ placed.turn + placed.position for placed in objects]
    )
    target = (points.min(0) + points.max(0)) / 2
    half_tangent = float(np.tan(np.deg2rad(rng.uniform(19, 26))))
    camera = (points - target) @ rotation
    distance = (np.abs(camera[:, :2]).max(1) / (_FILL * half_tangent) - camera[:, 2]).max()
    return Camera(rotation, -target @ rotation + [0, 0, distance], 1.0, half_tangent)


def _colors(rng: np.random.Generator) -> np.ndarray:
    sky = rng.uniform(0.55, 0.95, 3)
    ground = 0.35 + 0.35 * rng.uniform(0, 1, 3)
    return np.stack([ground, 0.5 * (sky + ground) + 0.1, sky]).clip(0, 1)
