"""`accelerate(pipeline)`: makes a pipeline do less work, says what it skipped, and can be taken off again."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from fastsam3d.acceleration.compatibility import refuse_what_a_host_lacks
from fastsam3d.acceleration.patching import Patches
from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.diffusion.attachment import Attachment
from fastsam3d.diffusion.host import Host
from fastsam3d.diffusion.hosts import find_host
from fastsam3d.diffusion.report import Report, StageReport, peak_memory
from fastsam3d.diffusion.vocabulary import STAGES, AccelerationWarning
from fastsam3d.errors import UserError

_MARK = "_fastsam3d_acceleration"


class Acceleration:
    """Handle of an accelerated pipeline: report, removal, and a context manager that removes at its end."""

    def __init__(self, host: Host, config: AccelerationConfig) -> None:
        self.config = config
        self._host = host
        self._patches = Patches()
        self._notes = tuple(host.notes()) if config["exact"].shared_features else ()
        self._report = self._fresh_report()
        self._attachment = Attachment(host, config, self._patches, self._report)
        try:
            self._attach()
        except BaseException:
            self.remove()
            raise

    @property
    def pipeline(self) -> Any:
        """The accelerated pipeline."""
        return self._host.pipeline

    @property
    def active(self) -> bool:
        """Whether it is still attached."""
        return len(self._patches) > 0

    def __repr__(self) -> str:
        state = "attached to" if self.active else "removed from"
        return f"<Acceleration {self.config.name!r}, {state} {type(self.pipeline).__name__}>"

    def report(self) -> Report:
        """What was done since the start or the last `reset_report`, as a copy."""
        report = copy.deepcopy(self._report)
        report.peak_memory_bytes = peak_memory(self._host.device)
        report.notes += tuple(replay.note() for replay in self._attachment.replays)
        return report

    def reset_report(self) -> None:
        """Sets all counts and seconds to zero."""
        fresh = self._fresh_report()
        for stage, counts in self._report.stages.items():
            # Sessions hold on to these objects.
            vars(counts).update(vars(fresh.stages[stage]))
        vars(self._report).update(vars(fresh) | {"stages": self._report.stages})
        for replay in self._attachment.replays:
            replay.reset_counts()

    def remove(self) -> None:
        """Takes everything off: the pipeline's objects are as they were. The report stays. Idempotent.

        Waits for a run in another thread, whose result would otherwise be neither the one nor the other.
        """
        with self._attachment.lock:
            self._patches.restore()
            for replay in self._attachment.replays:
                replay.release()

    def __enter__(self) -> Acceleration:
        if not self.active:
            raise UserError(f"this acceleration ({self.config.name}) was taken off: call accelerate again.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _fresh_report(self) -> Report:
        report = Report(self.config.name, self.config.enabled, {stage: StageReport() for stage in STAGES})
        report.notes = self._notes
        return report

    def _attach(self) -> None:
        # A copy of the pipeline must not believe that it is accelerated by this handle.
        self._patches.set(self.pipeline, _MARK, _Mark(self))
        self._attachment.attach()
        if hasattr(self.pipeline, "twins"):
            self._patches.replace(self.pipeline, "twins", self._accelerated_twins)

    def _accelerated_twins(self, original: Callable[[int], Any]) -> Callable[[int], Any]:
        """Pipelines that are made to run beside this one are accelerated alike, and reported with it."""

        @contextmanager
        def twins(count: int) -> Iterator[list[Any]]:
            with original(count) as copies, ExitStack() as stack:
                handles = [stack.enter_context(Acceleration(type(self._host)(copy), self.config)) for copy in copies]
                try:
                    yield copies
                finally:
                    for handle in handles:
                        self._report.add(handle._report)

        return twins


class _Mark:
    """Where a pipeline keeps its handle; a copy of the pipeline, deep or pickled, gets an empty one."""

    def __init__(self, acceleration: Acceleration | None) -> None:
        self.acceleration = acceleration

    def __deepcopy__(self, memo: dict[int, Any]) -> _Mark:
        return _Mark(None)

    def __reduce__(self) -> Any:
        return _Mark, (None,)


def acceleration_of(host: Host) -> Acceleration | None:
    """What a host's pipeline is accelerated by; None where it is as it was."""
    mark = vars(host.pipeline).get(_MARK)
    return None if mark is None else mark.acceleration


def accelerate(
    pipeline: Any, preset: str | Path | dict[str, Any] | AccelerationConfig = "balanced", **overrides: Any
) -> Acceleration:
    """Accelerates a pipeline in place, without touching its class or any other instance.

    Args:
        pipeline: what `fastsam3d.load_pipeline` gives, or another pipeline that a host knows.
        preset: `balanced` or another of `fastsam3d.presets()`; a YAML file; or settings.
        overrides: changed settings, nested or dotted: `step_caching={"stride": 2}`, `token_carving=True`,
            `**{"step_caching.stride": 2}`.

    Returns:
        The handle. A pipeline that is accelerated already is given the new acceleration in place of the old.

    Raises:
        UserError: an unknown pipeline, preset or key, or a value out of range.

    Example:
        >>> import fastsam3d                                                        # doctest: +SKIP
        >>> pipeline = fastsam3d.load_pipeline("mini")                              # doctest: +SKIP
        >>> with fastsam3d.accelerate(pipeline, "balanced") as acceleration:        # doctest: +SKIP
        ...     result = pipeline.run(image, mask)
        ...     print(acceleration.report())
    """
    # Everything that can be wrong with the settings is said before the pipeline is touched.
    config = load_preset(preset, overrides)
    host = find_host(pipeline)
    host.check()
    refuse_what_a_host_lacks(host, config.settings)
    if limits := host.memory_limits():
        config = load_preset(config, limits)
    if (previous := acceleration_of(host)) is not None:
        previous.remove()
    left_out = host.left_out() if any(name.startswith("exact.") for name in config.enabled) else []
    for text in [*config.warnings(), *left_out]:
        warnings.warn(text, AccelerationWarning, stacklevel=2)
    return Acceleration(host, config)
