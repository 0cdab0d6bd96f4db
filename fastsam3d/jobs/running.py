"""Common parts of all jobs: a loaded and accelerated pipeline, a clock, and writing at the end of a run."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fastsam3d.acceleration.presets import AccelerationConfig
from fastsam3d.basics.threads.adaptation import AdaptedThreads
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import SILENT, Listener, ReportedWarnings
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.report import REPORT, build_report, device_name
from fastsam3d.jobs.request import SAMPLERS, Request
from fastsam3d.sam3d.pipeline.formats import decodable

if TYPE_CHECKING:
    from fastsam3d.acceleration.handle import Acceleration
    from fastsam3d.diffusion.report import Report
    from fastsam3d.sam3d.pipeline.pipeline import Pipeline

LOADED = ("model", "checkpoint_dir", "random_weights", "formats", "precision", "memory", "acceleration")
"""Settings that cannot be changed after the pipeline is loaded and accelerated."""


@dataclass
class Clock:
    """Wall-clock seconds of the parts of a job."""

    seconds: dict[str, float] = field(default_factory=lambda: {"load": 0.0, "run": 0.0, "write": 0.0})

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds the time inside to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start


@dataclass(frozen=True)
class Accelerated:
    """A loaded pipeline, its acceleration, and the request that both were made for."""

    pipeline: Pipeline
    acceleration: Acceleration
    request: Request


@contextmanager
def attached(pipeline: Pipeline, config: AccelerationConfig) -> Iterator[Acceleration]:
    """Accelerates a pipeline inside a `with` block. It gives no warnings about settings: see `config.warnings()`."""
    from fastsam3d.acceleration.handle import accelerate
    from fastsam3d.diffusion.vocabulary import AccelerationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccelerationWarning)
        acceleration = accelerate(pipeline, config)
    with acceleration:
        yield acceleration


@contextmanager
def accelerated(request: Request, listener: Listener = SILENT, clock: Clock | None = None) -> Iterator[Accelerated]:
    """Loads the pipeline of a request and accelerates it. The acceleration is removed at the end.

    Args:
        clock: adds the seconds of loading.

    Raises:
        UserError: see `Request.load`.
    """
    with (clock or Clock()).measure("load"):
        listener.step(f"loading {request.model}")
        pipeline = request.load()
    with attached(pipeline, request.acceleration) as acceleration:
        yield Accelerated(pipeline, acceleration, request)


@contextmanager
def prepared(
    request: Request, given: Accelerated | None, listener: Listener, clock: Clock
) -> Iterator[tuple[Request, Accelerated]]:
    """Gives the pipeline of one job: a new one, or the given one with its counts set to zero.

    Yields:
        (the request with the sampler settings that are used, the pipeline).

    Raises:
        UserError: see `accelerated`; or the given pipeline was loaded for other settings.
    """
    if given is None:
        with accelerated(request, listener, clock) as new:
            yield request, new
        return
    _refuse_other_settings(request, given.request)
    given.acceleration.reset_report()
    yield replace(request, samplers=given.request.samplers), given


def computing_threads(request: Request) -> AdaptedThreads:
    """Makes the context manager of a job's threads. On a GPU their number changes only if the user gave one."""
    return AdaptedThreads(request.threads, adapts=request.device_name() == "cpu")


def usable_formats(request: Request, pipeline: Any) -> tuple[str, ...]:
    """Returns those of the wanted formats for which the pipeline has a decoder.

    Raises:
        UserError: the pipeline has no decoder for any of them.
    """
    there = decodable(pipeline.models)
    formats = tuple(name for name in request.formats if name in there)
    if not formats:
        raise UserError(f"the model {request.model} cannot decode {', '.join(request.formats)}: use formats=[mesh].")
    return formats


def finish(
    request: Request,
    folder: OutputFolder,
    running: Accelerated,
    inputs: Mapping[str, Any],
    objects: Sequence[Mapping[str, Any]],
    clock: Clock,
    listener: ReportedWarnings,
    threads: AdaptedThreads,
    more: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[Path]]:
    """Writes the report and publishes all files.

    Args:
        inputs: files that were read.
        objects: entries of the objects in the report.
        listener: its warnings go into the report.
        threads: the threads that the job used.
        more: further entries of the report.

    Returns:
        (the report, paths of all files).
    """
    report = build_report(
        request,
        device_name(running.pipeline.device, threads),
        inputs,
        objects,
        cast("Report", running.acceleration.report()),
        clock.seconds,
        listener.warnings,
        _axes(objects) | dict(more or {}),
    )
    folder.write_json(REPORT, report)
    earlier = _object_files(folder.path / REPORT)
    paths = folder.publish()
    left = [name for name in sorted(earlier - {path.name for path in paths}) if (folder.path / name).is_file()]
    if left:
        others = f" and {len(left) - 1} more" if len(left) > 1 else ""
        listener.note(f"of an earlier run in {folder.path}, and not of this one: {left[0]}{others}")
    return report, paths


def _refuse_other_settings(request: Request, loaded: Request) -> None:
    pairs = {key: (getattr(request, key), getattr(loaded, key)) for key in LOADED}
    pairs["device"] = request.device_name(), loaded.device_name()
    for part in SAMPLERS:
        for key, value in request.samplers[part].items():
            if f"model.{part}.{key}" in request.given:
                pairs[f"model.{part}.{key}"] = value, loaded.samplers[part][key]
    for key, (wanted, there) in pairs.items():
        if wanted != there:
            wanted, there = (getattr(value, "name", value) for value in (wanted, there))
            raise UserError(
                f"the pipeline was loaded for {key}={there}, but the job asks for {key}={wanted}: "
                "give the job a pipeline of its own."
            )


def _object_files(report: Path) -> set[str]:
    """Returns the names of the object files in an earlier report; none if there is no readable report."""
    try:
        objects = json.loads(report.read_text(encoding="utf-8"))["objects"]
        entries = [value for item in objects for value in item.get("files", {}).values()]
        names = [name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)]
        return {name for name in names if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _axes(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the axes and units of the written formats."""
    from fastsam3d.meshes.formats import OBJECT_UNITS, written_formats

    used = [each for each in written_formats() if any(each.name in item.get("files", {}) for item in objects)]
    return {"axes": {each.name: each.described() for each in used}, "units": OBJECT_UNITS}
