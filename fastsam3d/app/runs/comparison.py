"""Runs a request of the page: a preset with one or several seeds, and `off` with the best seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.basics.pixels import SEEDS
from fastsam3d.diffusion.report import Report
from fastsam3d.errors import UserError
from fastsam3d.jobs.running import attached
from fastsam3d.jobs.scene_files import field_of_view
from fastsam3d.meshes.writing import Preparation
from fastsam3d.sam3d.pipeline.formats import decodable
from fastsam3d.sam3d.pipeline.pipeline import Pipeline
from fastsam3d.sam3d.scene.placement import mask_agreement
from fastsam3d.sam3d.scene.reconstruct import Scene, reconstruct_scene

OFF = "off"


@dataclass(frozen=True)
class ComparisonRequest:
    """A visitor's request for a comparison.

    Attributes:
        picture: uint8 `[H, W, 3]`.
        masks: bool `[H, W]`, one for each object.
        config: settings of the acceleration.
        seeds: one run for each seed; the best run is chosen.
        compare: run `off` with the chosen seed as well.
        pointmap: fp32 `[H, W, 3]` or None.
        names: names of the objects for files; () numbers the objects.
        preparation: changes of the meshes before they are written.
    """

    picture: np.ndarray
    masks: tuple[np.ndarray, ...]
    config: AccelerationConfig
    seeds: tuple[int, ...] = (0,)
    compare: bool = False
    pointmap: np.ndarray | None = None
    names: tuple[str, ...] = ()
    preparation: Preparation = Preparation()

    @property
    def object_names(self) -> tuple[str, ...]:
        """Returns the names of the objects' files; objects without a name are numbered from 1, as on the page."""
        return self.names or tuple(f"object_{number + 1}" for number in range(len(self.masks)))


@dataclass(frozen=True)
class RunProgress:
    """Progress of a request: run `run` of `runs`, object `item` of `items`, steps of a stage. Counted from 0."""

    preset: str
    seed: int
    run: int
    runs: int
    item: int
    items: int
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Run:
    """All objects with one preset and one seed.

    Attributes:
        agreement: mean of `mask_agreement` (outline against mask) over the objects; an object that failed counts 0. It
            chooses the best of several seeds. It needs no true shape, only the picture, and does not judge the back.
        warnings: advice about the settings.
    """

    preset: str
    seed: int
    scene: Scene
    report: Report
    agreement: float
    warnings: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Returns the wall-clock seconds of all stages of all objects."""
        return sum(self.report.seconds.values())


@dataclass(frozen=True)
class Comparison:
    """Runs of a request by seed, which of them is best, and runs of `off` by seed."""

    candidates: tuple[Run, ...]
    best: int
    plain: dict[int, Run]

    def candidate(self, seed: int) -> Run:
        """Returns the run of a seed.

        Raises:
            UserError: there is no such run.
        """
        for run in self.candidates:
            if run.seed == seed:
                return run
        raise UserError(f"Seed {seed} was not run.")


def compare(pipeline: Pipeline, request: ComparisonRequest, report: Callable[[RunProgress], None]) -> Comparison:
    """Carries out a request. Afterwards the pipeline is as before, also after an error.

    Raises:
        UserError: no object could be reconstructed with any seed.
    """
    plain_too = request.compare and request.config.name != OFF
    runs = len(request.seeds) + plain_too
    candidates = tuple(
        run_once(pipeline, request, request.config, seed, index, runs, report)
        for index, seed in enumerate(request.seeds)
    )
    best = max(range(len(candidates)), key=lambda index: candidates[index].agreement)
    if not candidates[best].scene.reconstructions:
        reasons = "; ".join(dict.fromkeys(candidates[best].scene.failures.values()))
        raise UserError(f"Nothing could be reconstructed: {reasons}")
    plain = {}
    if plain_too:
        seed = candidates[best].seed
        plain[seed] = run_once(pipeline, request, load_preset(OFF), seed, runs - 1, runs, report)
    return Comparison(candidates, best, plain)


def run_once(
    pipeline: Pipeline,
    request: ComparisonRequest,
    config: AccelerationConfig,
    seed: int,
    index: int,
    runs: int,
    report: Callable[[RunProgress], None],
) -> Run:
    """Runs all objects of a request with one preset and one seed; `index` of `runs` is for the progress."""
    names = request.object_names

    def progress(name: str, stage: str, done: int, total: int) -> None:
        first = name.split(", ")[0]  # of a batch
        report(RunProgress(config.name, seed, index, runs, names.index(first), len(names), stage, done, total))

    with attached(pipeline, config) as acceleration:
        scene = reconstruct_scene(
            pipeline,
            request.picture,
            request.masks,
            names=names,
            seed=seed,
            pointmap=request.pointmap,
            formats=decodable(pipeline.models),
            progress=progress,
        )
        done = cast(Report, acceleration.report())
    view = field_of_view(request.pointmap)
    found = {item.name: item.reconstruction for item in scene.objects if item.reconstruction is not None}
    masks = dict(zip(names, request.masks, strict=True))
    agreements = mask_agreement(found, masks, view)
    agreement = sum(agreements.values()) / len(names)
    return Run(config.name, seed, scene, done, agreement, tuple(config.warnings()))  # shown in the page


def seeds_from(first: Any, count: Any, limit: int) -> tuple[int, ...]:
    """`count` seeds from `first` on.

    Raises:
        UserError: no whole numbers, or out of range.
    """
    try:
        start, number = int(first), int(count)
    except (TypeError, ValueError, OverflowError):
        raise UserError("The seed must be a whole number.") from None
    if not 1 <= number <= limit:
        raise UserError(f"From 1 to {limit} seeds can be tried at a time.")
    if not 0 <= start <= SEEDS - number:
        raise UserError(f"The seed must be a whole number from 0 to {SEEDS - number}.")
    return tuple(range(start, start + number))


def warm_up(pipeline: Pipeline, step: Callable[[], None], presets: Sequence[str] = (OFF, "fast")) -> None:
    """Runs small requests once, so that memory, kernels and lazy imports cost the first visitor nothing.

    Without it, the first of two compared runs would look slow.

    Args:
        step: called at every step; may raise to stop.
    """
    side = 64
    rows, columns = np.mgrid[:side, :side]
    mask = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side / 3) ** 2
    picture = np.where(mask[..., None], 200, 90).astype(np.uint8).repeat(3, axis=2)
    for preset in presets:
        request = ComparisonRequest(picture, (mask,), load_preset(preset), compare=False)
        run_once(pipeline, request, request.config, 0, 0, 1, lambda _: step())
