"""What `infer` and `scene` share: settings, a loaded and accelerated pipeline, and the end of a run."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastsam3d.cli.console import Console
from fastsam3d.cli.flags import Arguments
from fastsam3d.cli.settings import Settings
from fastsam3d.jobs.output_folder import OutputFolder, json_text
from fastsam3d.jobs.report import build_report, device_name, render
from fastsam3d.sam3d.pipeline.formats import decodable

if TYPE_CHECKING:
    from fastsam3d.acceleration.handle import Acceleration
    from fastsam3d.sam3d.pipeline.pipeline import Pipeline

REPORT = "report.json"


@dataclass
class Clock:
    """Wall-clock seconds of the parts of a command."""

    seconds: dict[str, float] = field(default_factory=lambda: {"load": 0.0, "run": 0.0, "write": 0.0})

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds the time inside to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start


@contextmanager
def accelerated(settings: Settings, console: Console, clock: Clock) -> Iterator[tuple[Pipeline, Acceleration]]:
    """A loaded pipeline with its acceleration, which is taken off at the end."""
    from fastsam3d.acceleration.handle import accelerate
    from fastsam3d.diffusion.vocabulary import AccelerationWarning

    with clock.measure("load"):
        console.step(f"loading {settings.model}")
        pipeline = settings.load()
    with warnings.catch_warnings():
        # They are among the settings' warnings, which the console has shown.
        warnings.simplefilter("ignore", AccelerationWarning)
        acceleration = accelerate(pipeline, settings.acceleration)
    with acceleration:
        yield pipeline, acceleration


def usable_formats(settings: Settings, pipeline: Any) -> tuple[str, ...]:
    """The formats asked for that the pipeline has a decoder for.

    Raises:
        UserError: there is none.
    """
    from fastsam3d.errors import UserError

    there = decodable(pipeline.models)
    formats = tuple(name for name in settings.formats if name in there)
    if not formats:
        raise UserError(f"the model {settings.model} cannot decode {', '.join(settings.formats)}: use formats=[mesh].")
    return formats


def finish(
    arguments: Arguments,
    settings: Settings,
    folder: OutputFolder,
    pipeline: Any,
    acceleration: Acceleration,
    inputs: Mapping[str, Any],
    objects: Sequence[Mapping[str, Any]],
    clock: Clock,
    console: Console,
    more: Mapping[str, Any] | None = None,
) -> str:
    """Writes the report, publishes all files and returns what stdout shall say.

    Args:
        more: further entries of the report.
    """
    report = build_report(
        settings,
        device_name(pipeline.device),
        inputs,
        objects,
        acceleration.report(),
        clock.seconds,
        console.warnings,
        _axes(objects) | dict(more or {}),
    )
    folder.write_json(REPORT, report)
    earlier = _object_files(folder.path / REPORT)
    paths = folder.publish()
    left = [name for name in sorted(earlier - {path.name for path in paths}) if (folder.path / name).is_file()]
    if left:
        others = f" and {len(left) - 1} more" if len(left) > 1 else ""
        console.note(f"of an earlier run in {folder.path}, and not of this one: {left[0]}{others}")
    if arguments.as_json:
        return json_text(report)
    if arguments.quiet:
        return ""
    return f"{render(report)}\n\n{_written(paths)}\n"


def _object_files(report: Path) -> set[str]:
    """Names of the object files that an earlier report tells of; none where there is no readable one."""
    try:
        objects = json.loads(report.read_text(encoding="utf-8"))["objects"]
        entries = [value for item in objects for value in item.get("files", {}).values()]
        names = [name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)]
        return {name for name in names if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _axes(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Axes and units of the formats that were written."""
    from fastsam3d.meshes.formats import OBJECT_UNITS, written_formats

    used = [each for each in written_formats() if any(each.name in item.get("files", {}) for item in objects)]
    return {"axes": {each.name: each.described() for each in used}, "units": OBJECT_UNITS}


def _written(paths: Sequence[Path]) -> str:
    """One line a file; of files that differ only by a number, one line for all."""
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kinds.setdefault(re.sub(r"^object_\d+", "object_*", path.name), []).append(path)
    rows = []
    for kind, members in kinds.items():
        size = _size(sum(path.stat().st_size for path in members))
        rows.append((members[0].name, size, "") if len(members) == 1 else (kind, size, f"  {len(members)} files"))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{width}}  {size:>9}{count}" for name, size, count in rows]
    return "\n".join([f"written to {paths[0].parent}", *lines])


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{-(-size // 2**10)} KiB"
