"""Attaches all savings to one pipeline: exact savings, parts inside the networks, policies, counting.

Wrappers nest: the one that is attached last is the outermost. Registered savings say where they nest
(`exact.saving.Nesting`); what techniques need inside the blocks comes between them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.acceleration.presets import AccelerationConfig
from fastsam3d.basics.peak_memory import PeakMemory
from fastsam3d.basics.runs import runs_of
from fastsam3d.diffusion.capabilities import STRUCTURED_LATENT
from fastsam3d.diffusion.exact.saving import GROUP, ExactSaving, Nesting, PipelineTarget, StageTarget, savings
from fastsam3d.diffusion.host import Host
from fastsam3d.diffusion.operations import Operations
from fastsam3d.diffusion.policies import Policies
from fastsam3d.diffusion.report import Report, StageReport
from fastsam3d.diffusion.sites import EvaluationState
from fastsam3d.diffusion.stage_runner import StageRunner
from fastsam3d.diffusion.vocabulary import VoxelSet
from fastsam3d.diffusion.watch import Watch
from fastsam3d.errors import UserError


class Attachment:
    """All savings that are attached to one pipeline, and the counts of its runs.

    Args:
        host: knows where the pipeline's parts are.
        config: settings of every technique.
        patches: records every change.
        accelerate: accelerates a copy of the pipeline with the same settings; returns the handle.
    """

    def __init__(
        self, host: Host, config: AccelerationConfig, patches: Patches, accelerate: Callable[[Any], Any]
    ) -> None:
        self._host, self._config, self._patches, self._accelerate = host, config, patches, accelerate
        self._report = Report(config.name, config.enabled, {stage: StageReport() for stage in host.stages})
        self._policies = Policies(config)
        switched_on = config[GROUP].switched_on
        self._savings: list[ExactSaving] = [s for s in savings(switched_on) if switched_on.issuperset(s.requires)]
        self._operations = Operations(
            self._report, host.costs(), [saving.name for saving in self._savings], partial(_index_of, host)
        )
        self._target = PipelineTarget(host, patches, self._operations)
        self.runners: dict[str, StageRunner] = {}
        """By name of stage."""
        self._watch = Watch(config.name, host, self._policies, self.runners)
        self._inside: list[str] = []  # run methods in progress; one thread at a time gets that far
        self._is_attached = True
        self.lock = runs_of(host.target)
        """Held while the pipeline runs: what is attached has one state, whichever thread it is called from."""

    def attach(self) -> None:
        """Attaches everything. After an exception part of it is there; the patches take it off."""
        host, patches = self._host, self._patches
        for saving in self._savings:
            if saving.attach is not None:
                saving.attach(self._target)
        for stage, kind in host.stages.items():
            self._attach_stage(stage, kind)
        policy = self._policies.voxels(STRUCTURED_LATENT)
        counted = None if policy is None else _CountedVoxels(policy, self._report, self._operations)
        host.attach_structure(patches, counted)
        host.attach_recorder(patches, _Recorder(self._report, self._operations))
        for name in self._methods(host.run_methods):
            patches.replace(host.pipeline, name, partial(self._ending, name))
        for name in self._methods((*host.run_methods, *host.part_methods)):
            patches.replace(host.pipeline, name, self._measured)
            patches.replace(host.pipeline, name, partial(self._alone, name))
        if hasattr(host.pipeline, "twins"):
            patches.replace(host.pipeline, "twins", self._accelerated_twins)

    def report(self) -> Report:
        """A copy of the counts since the start or the last reset."""
        report = copy.deepcopy(self._report)
        report.techniques = tuple(t for t in report.techniques if t not in self._watch.without_effect())
        own = self._host.notes()
        report.notes += (*(note() for note in self._target.notes), *self._watch.notes(), *own)
        report.details = {name: details() for name, details in self._target.details.items()}
        return report

    def reset_report(self) -> None:
        """Sets all counts, seconds and the peak memory to zero."""
        fresh = Report(self._config.name, self._config.enabled, {stage: StageReport() for stage in self._host.stages})
        for stage, counts in self._report.stages.items():
            # Runners hold on to these objects.
            vars(counts).update(vars(fresh.stages[stage]))
        vars(self._report).update(vars(fresh) | {"stages": self._report.stages})
        for reset in self._target.resets:
            reset()

    def add_report(self, other: Report) -> None:
        """Adds the counts of another attachment with the same settings."""
        self._report.add(other)

    def release(self) -> None:
        """Frees kept memory; called after the patches are restored."""
        self._is_attached = False
        for release in self._target.at_removal:
            release()

    def _attach_stage(self, stage: str, kind: str) -> None:
        policies = self._policies
        runner = StageRunner(
            EvaluationState(),
            self._report.stages[stage],
            partial(policies.velocity, kind),
            partial(policies.evaluation, kind),
            partial(policies.blocks, kind),
            **policies.step_count(kind),
            offers={name for name in self._host.offers(kind) if (kind, name) not in self._host.refusals()},
            on_end=partial(self._operations.sampled, stage),
        )
        self.runners[stage] = runner
        target = StageTarget(
            self._target,
            stage,
            kind,
            runner,
            inside=policies.inside(kind),
            policies=policies.decides_evaluations(kind),
            enabled=frozenset(saving.name for saving in self._savings),
        )
        inner = [saving for saving in self._savings if saving.nesting < Nesting.TECHNIQUES]
        outer = [saving for saving in self._savings if saving.nesting >= Nesting.TECHNIQUES]
        for saving in inner:
            if saving.attach_stage is not None:
                saving.attach_stage(target)
        for keeper in policies.attach_inside(self._host, self._patches, stage, kind, runner):
            target.keep(keeper)
        for saving in outer:
            if saving.attach_stage is not None:
                saving.attach_stage(target)
        self._host.attach_sampler(self._patches, stage, runner)

    def _methods(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if hasattr(self._host.pipeline, name)]

    def _ending(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a method that makes a whole object: kept values are released after it, and what did nothing is told."""

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                result = original(*args, **kwargs)
            except BaseException:
                self._operations.broke_off()
                raise
            finally:
                for runner in self.runners.values():
                    if runner.state.running:  # a host that does not end a run after an exception
                        runner.finish()
                for end in self._target.at_end:
                    end()
            self._watch.finished(name, args, kwargs)
            return result

        return call

    def _alone(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a method so that one thread at a time runs it, and no run is begun inside another."""
        makes_object = name in self._host.run_methods

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.lock:
                if self._is_attached and makes_object:
                    return self._object(name, original, args, kwargs)
                if self._is_attached:
                    return original(*args, **kwargs)
            # It was taken off while this thread waited: run what the pipeline has now, plain or accelerated anew.
            current = getattr(self._host.pipeline, name)
            return (original if getattr(current, "__wrapped__", None) is call else current)(*args, **kwargs)

        return call

    def _object(self, name: str, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in self._inside:
            raise UserError(
                f"{name} was called in the middle of {name} of the same accelerated pipeline, as in a callback, "
                "and what is attached keeps values of one object at a time: call it after the other has ended, or on a "
                "copy.deepcopy."
            )
        self._inside.append(name)
        try:
            return original(*args, **kwargs)
        finally:
            self._inside.pop()

    def _measured(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a method to report its peak memory. Where one such method calls another, the outer one counts."""

        def call(*args: Any, **kwargs: Any) -> Any:
            memory = PeakMemory(self._host.device)
            try:
                with memory:
                    return original(*args, **kwargs)
            finally:
                self._report.peak_memory_bytes = max(self._report.peak_memory_bytes, memory.size)

        return call

    def _accelerated_twins(self, original: Callable[[int], Any]) -> Callable[[int], Any]:
        """Wraps `twins`: accelerates the pipelines that run beside this one, and adds their counts to its report."""

        @contextmanager
        def twins(count: int) -> Iterator[list[Any]]:
            with original(count) as copies, ExitStack() as stack:
                handles = [stack.enter_context(self._accelerate(copy)) for copy in copies]
                try:
                    yield copies
                finally:
                    for handle in handles:
                        self.add_report(handle.report())

        return twins


class _Recorder:
    def __init__(self, report: Report, operations: Operations) -> None:
        self._report, self._operations = report, operations

    def add_object(self, seconds: dict[str, float]) -> None:
        self._operations.finished(seconds)
        self._report.add_object(seconds)


class _CountedVoxels:
    """Asks a voxel policy, and counts the voxels that it merged."""

    def __init__(self, policy: Any, report: Report, operations: Operations) -> None:
        self._policy, self._report, self._operations = policy, report, operations

    def reduce(self, voxels: VoxelSet) -> Any:
        merged = self._policy.reduce(voxels)
        before, after = len(voxels.coords), len(voxels.coords if merged is None else merged.coords)
        self._report.voxels_before += before
        self._report.voxels_after += after
        self._operations.merged(voxels.coords, None if merged is None else merged.coords)
        return merged


def _index_of(host: Host, coords: Tensor) -> Any:
    """Builds index tables of the voxels, or takes those that the run keeps; the voxels alone without a maker."""
    makers = host.index_makers()
    return makers[0].make_index(coords) if makers else coords
