"""Read this first: `accelerate(model)` makes a model do less work, reports what it skipped, and can be removed again.

`accelerate` asks the families of models (`acceleration.family`) which of them knows the model. It reads the preset, and
checks everything that can be wrong before it changes the model. Then the family attaches its savings to this one object
through `Patches`. The handle removes them.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

from fastsam3d.acceleration.family import Family, family_named, find_host
from fastsam3d.acceleration.patching import Patches
from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.acceleration.run_report import RunReport
from fastsam3d.acceleration.settings import AccelerationWarning
from fastsam3d.basics.runs import runs_of
from fastsam3d.errors import UserError

logger = logging.getLogger(__name__)

_MARK = "_fastsam3d_acceleration"


class Acceleration:
    """Handle of an accelerated model: report, removal, and a context manager that removes at its end."""

    def __init__(self, family: Family, host: Any, config: AccelerationConfig) -> None:
        self.config = config
        self._host = host
        self._patches = Patches(alone=True)
        self._runs = runs_of(self.pipeline)
        with self._runs.changing("accelerate"):
            # A copy of the model must not appear as accelerated by this handle.
            self._patches.set(self.pipeline, _MARK, _Mark(self))
            try:
                self._attached = family.attach(host, config, self._patches, self._again)
            except BaseException:
                self._patches.restore()
                raise
            self._runs.one_at_a_time = True

    @property
    def pipeline(self) -> Any:
        """Returns the accelerated pipeline or model."""
        return self._host.target

    @property
    def active(self) -> bool:
        """Tells whether the acceleration is still attached."""
        return len(self._patches) > 0

    def __repr__(self) -> str:
        state = "attached to" if self.active else "removed from"
        return f"<Acceleration {self.config.name!r}, {state} {type(self.pipeline).__name__}>"

    def summary(self) -> str:
        """Returns one line: the preset, the model, and the names of the attached techniques and exact savings."""
        exact = [name.partition(".")[2] for name in self.config.enabled if name.startswith("exact.")]
        others = [name for name in self.config.enabled if not name.startswith("exact.")]
        parts = [f"approximate: {', '.join(others)}" if others else "", f"exact: {', '.join(exact)}" if exact else ""]
        what = "; ".join(part for part in parts if part) or "nothing"
        return f"attached {self.config.name} to {type(self.pipeline).__name__}: {what}"

    def report(self) -> RunReport:
        """Tells what was done since the start or the last `reset_report`.

        Returns:
            A copy of the family's report, for instance `fastsam3d.diffusion.report.Report`. Print it, or use `total`,
            `to_dict()`, or `to_csv()`.
        """
        report: RunReport = self._attached.report()
        return report

    def reset_report(self) -> None:
        """Sets all counts, seconds and the peak memory to zero."""
        self._attached.reset_report()

    def remove(self) -> None:
        """Removes all changes: the model's objects are as before. The report stays. A second call does nothing.

        It waits for a run in another thread. Otherwise a part of that run would be accelerated, and a part not.

        Raises:
            UserError: this thread is in the middle of a run, for instance in its progress callback.
        """
        if not self.active:
            return
        with self._runs.changing("remove"), self._attached.lock:
            self._patches.restore()
            self._attached.release()
            self._runs.one_at_a_time = False
        logger.info("removed %s from %s", self.config.name, type(self.pipeline).__name__)

    def __enter__(self) -> Acceleration:
        if not self.active:
            raise UserError(f"this acceleration ({self.config.name}) was removed: call accelerate again.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __getattr__(self, name: str) -> Any:
        """Returns a method that the family offers in addition, for instance `visual` of language models."""
        offers = getattr(vars(self).get("_attached"), "offers", {})
        if name not in offers:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return offers[name]

    def _again(self, copy: Any) -> Acceleration:
        """Accelerates a copy of the model with the same settings."""
        return Acceleration(family_named(self.config.family), type(self._host)(copy), self.config)


class _Mark:
    """Holds the handle of a model; a copy of the model, deep or pickled, gets an empty one."""

    def __init__(self, acceleration: Acceleration | None) -> None:
        self.acceleration = acceleration

    def __deepcopy__(self, memo: dict[int, Any]) -> _Mark:
        return _Mark(None)

    def __reduce__(self) -> Any:
        return _Mark, (None,)


def acceleration_of(host: Any) -> Acceleration | None:
    """Returns the handle of a host's model; None if the model is not accelerated.

    Raises:
        UserError: the model is a shallow copy of an accelerated one.
    """
    mark = vars(host.target).get(_MARK)
    handle: Acceleration | None = None if mark is None else mark.acceleration
    if handle is not None and handle.pipeline is not host.target:
        raise UserError(
            f"this {type(host.target).__name__} is a shallow copy of one that is accelerated, and shares its networks: "
            "take copy.deepcopy, or copy it before it is accelerated."
        )
    return handle


def accelerate(
    pipeline: Any, preset: str | Path | dict[str, Any] | AccelerationConfig = "balanced", **overrides: Any
) -> Acceleration:
    """Accelerates a pipeline or model in place, without touching its class or any other instance.

    It waits for runs in other threads, and new runs wait until it is done. In the middle of a run of the same thread it
    raises an error. The native pipeline counts all its runs. For other pipelines and models, only runs that begin while
    they are accelerated are counted: do not call this while a plain run of them is in progress.

    You may load, move or replace weights of an accelerated model. Values that were computed from the weights are then
    computed again. There is one exception: PyTorch does not count writes through `parameter.data` to the same memory,
    such as `parameter.data.mul_(2)`. Call `accelerate` again after them. A shallow copy of an accelerated pipeline
    shares its networks and cannot be used beside it: use `copy.deepcopy`.

    The preset says how much may be skipped. `exact` changes no result; `balanced` gives nearly the plain result; `fast`
    is rougher. `fastsam3d.presets()` lists all presets. Each has settings that you can change. Examples:

    - `multistep={"steps": x}`, for presets with multistep sampling such as `balanced`: share of the first stage's own
      steps that are taken. Lower is faster and rougher.
    - `step_caching={"stride": n}`, for `paper`: one of n steps of the first stage runs the network. Higher is faster
      and rougher.
    - `adaptive_caching={"threshold": x}`, for `paper` and `fast`: estimated error of a forecast of the latent stage at
      which the network runs again. Higher is faster and rougher.

    Args:
        pipeline: a pipeline of `fastsam3d.load_pipeline`, or another model that a host knows.
        preset: a preset's name, a YAML file, or settings.
        overrides: changed settings, nested or dotted: `step_caching={"stride": 2}`, `token_carving=True`,
            `**{"step_caching.stride": 2}`. `python -m fastsam3d presets --keys` explains all of them.

    Returns:
        The handle. If the pipeline is accelerated already, the new acceleration replaces the old one.

    Raises:
        UserError: an unknown pipeline, preset or key, or a value out of range; a run of this thread is in progress; the
            pipeline shares its networks with an accelerated one; or its networks are wrapped so that nothing can be
            attached.

    Example:
        >>> import fastsam3d                                                        # doctest: +SKIP
        >>> pipeline = fastsam3d.load_pipeline("mini")                              # doctest: +SKIP
        >>> with fastsam3d.accelerate(pipeline, "balanced") as acceleration:        # doctest: +SKIP
        ...     result = pipeline.run(image, mask)
        ...     print(acceleration.report())
    """
    # All errors of the settings are raised before the pipeline is changed.
    host = find_host(pipeline)
    family = family_named(host.family)
    config = family.fit(host, load_preset(preset, overrides, family.name))
    with runs_of(host.target).changing("accelerate"):
        if (previous := acceleration_of(host)) is not None:
            previous.remove()
        for text in [*config.warnings(), *family.notices(host, config)]:
            warnings.warn(text, AccelerationWarning, stacklevel=2)
        handle = Acceleration(family, host, config)
    logger.info("%s", handle.summary())
    return handle
