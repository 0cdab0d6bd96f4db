"""Everything that is attached to a pipeline for given settings. What is attached later acts outside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from fastsam3d.acceleration.compatibility import working_inside
from fastsam3d.acceleration.patching import Patches
from fastsam3d.acceleration.presets import AccelerationConfig
from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.exact.cast_weights import CastWeights
from fastsam3d.diffusion.exact.condition_cache import ConditionCache, condition_caches
from fastsam3d.diffusion.exact.cuda_capture import CudaCapture
from fastsam3d.diffusion.exact.graph_replay import GraphReplay
from fastsam3d.diffusion.exact.index_cache import IndexCache
from fastsam3d.diffusion.exact.occupied_taps import OccupiedTaps
from fastsam3d.diffusion.exact.onednn import DenseConvolution, FusedFeedForward
from fastsam3d.diffusion.exact.shared_prefix import SharedPrefix
from fastsam3d.diffusion.exact.time_tables import TimeTable
from fastsam3d.diffusion.host import Host
from fastsam3d.diffusion.operations import Ledger
from fastsam3d.diffusion.partial.block_stack import BlockStack
from fastsam3d.diffusion.partial.blocks import PartialBlocks
from fastsam3d.diffusion.partial.streams import PartialStreams
from fastsam3d.diffusion.report import Report
from fastsam3d.diffusion.sites import EvaluationState
from fastsam3d.diffusion.stage_runner import StageSession
from fastsam3d.diffusion.techniques import REGISTRY
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STAGES, STRUCTURED_LATENT, Trajectory, VoxelSet


class Attachment:
    """What `Acceleration` attaches to one pipeline.

    Args:
        host: knows where the pipeline's parts are.
        config: settings of every technique.
        patches: through which everything is attached, and taken off.
        report: where counts go.
    """

    def __init__(self, host: Host, config: AccelerationConfig, patches: Patches, report: Report) -> None:
        self._host, self.config, self._patches, self._report = host, config, patches, report
        self.replays: list[GraphReplay] = []
        self.lock = threading.RLock()
        """Held while the pipeline runs: what is attached has one state, whichever thread it is called from."""

    def attach(self) -> None:
        """Attaches everything. After an exception part of it is there; the patches take it off."""
        host, patches, config = self._host, self._patches, self.config
        tables = self._attach_weights_and_tables()
        self._attach_decoding_and_encoding()
        on = [name for name, value in vars(config["exact"]).items() if value is True]
        ledger = Ledger(self._report, host.costs(), on)
        host.on_reuse = ledger.reused
        for stage in STAGES:
            self._attach_stage(stage, ledger)
        voxel_policies = [t.make(config[t.name]) for t in self._on("voxels", STRUCTURED_LATENT) if t.make is not None]
        policy = _CountedVoxels(voxel_policies[0], self._report, ledger) if voxel_policies else None
        host.attach_structure(patches, policy)
        host.attach_recorder(patches, _Recorder(self._report, ledger))
        for name in host.run_methods:
            if hasattr(host.pipeline, name):
                patches.replace(host.pipeline, name, partial(_ending, tables.clear, ledger.broke_off))
        for name in (*host.run_methods, *host.part_methods):
            if hasattr(host.pipeline, name):
                patches.replace(host.pipeline, name, partial(_alone, self.lock))

    def _attach_stage(self, stage: str, ledger: Ledger) -> None:
        host, patches, config = self._host, self._patches, self.config
        state = EvaluationState()
        session = StageSession(
            state,
            self._report.stages[stage],
            self._maker("velocity", stage),
            self._maker("evaluation", stage),
            self._maker("blocks", stage),
            **self._step_count(stage),
        )
        session.run_ended = partial(ledger.sampled, stage)
        caches = condition_caches(config["exact"], host.cross_attentions(stage), state)
        for cache in caches:
            patches.replace(cache.site.module, "forward", cache.site.states.through(cache.wrap))
            session.keepers.append(cache)
        for site in host.time_sites(stage) if config["exact"].time_tables else ():
            table = TimeTable(site, state)
            patches.replace(site.module, "forward", table.wrap)
            session.keepers.append(table)
        if stage == STRUCTURED_LATENT:
            self._attach_latent(session, state)
        self._attach_blocks(stage, session, state)
        state.joint = self.may_join(stage)
        self._attach_replay(stage, session, caches)
        # After carving, so that a carved evaluation shares what it computed as well.
        for module in host.branch_prefix(stage) if config["exact"].shared_prefix else ():
            shared = SharedPrefix(state)
            patches.replace(module, "forward", shared.wrap)
            session.keepers.append(shared)
        host.attach_sampler(patches, stage, session)

    def _attach_weights_and_tables(self) -> IndexCache:
        """What lives longer than a run, and is the innermost of what is attached."""
        host, patches, exact = self._host, self._patches, self.config["exact"]
        for layer in host.cast_layers() if exact.cast_weights else ():
            patches.replace(layer, "forward", CastWeights(layer).wrap)
        tables = IndexCache()
        for maker in [*host.index_makers(), *host.voxel_decoders()] if exact.index_cache else ():
            patches.replace(maker, "make_index", tables.wrap)
        for convolution in host.convolutions() if exact.occupied_taps else ():
            patches.replace(convolution, "apply_to", OccupiedTaps(convolution).wrap)
        for convolution in host.dense_convolutions() if exact.onednn else ():
            patches.replace(convolution, "forward", DenseConvolution(convolution).wrap)
        for sequence in host.feed_forwards() if exact.onednn else ():
            patches.replace(sequence, "forward", FusedFeedForward(sequence).wrap)
        return tables

    def may_join(self, stage: str) -> bool:
        """Whether both branches may share a pass: nothing inside the network has a memory of its own for each."""
        exact = self.config["exact"]
        inside = working_inside(stage, self.config.settings) or self._on("evaluation", stage)
        return exact.joint_branches and exact.zero_condition and not inside

    def _attach_replay(self, stage: str, session: StageSession, caches: list[ConditionCache]) -> None:
        """Graphs for the whole evaluations of a stage, or the reason why not in the report's notes."""
        # Shapes of the latent stage change with every object, and one object has too few evaluations for a recording.
        if not self.config["exact"].cuda_graphs or stage != SPARSE_STRUCTURE:
            return
        host, capture = self._host, CudaCapture(self._host.device)
        replay = GraphReplay(stage, session.state, capture, lambda: host.network_tensors(stage), caches)
        if inside := working_inside(stage, self.config.settings):
            replay.refusal = f"{' and '.join(inside)} works inside the network"
        else:
            replay.refusal = host.replay_refusal() or replay.refusal
        self.replays.append(replay)
        if replay.refusal is None:
            session.replay = replay
            session.keepers.append(replay)

    def _attach_decoding_and_encoding(self) -> None:
        """Other ways to compute whole layers: before what keeps or leaves out tokens, which goes around them."""
        host, exact = self._host, self.config["exact"]
        if exact.maskless_attention:
            host.attach_maskless_attention(self._patches)
        if exact.sparse_surface:
            host.attach_sparse_surface(self._patches)
        if exact.shared_features:
            host.attach_shared_features(self._patches)

    def _attach_latent(self, session: StageSession, state: EvaluationState) -> None:
        if self.config["exact"].index_cache:
            session.keepers += self._host.attach_voxel_tables(self._patches, state)
        if self.config["token_carving"].enabled:
            carved = PartialBlocks(self._host.latent_blocks(), state)
            carved.attach(self._patches)
            session.keepers.append(carved)

    def _attach_blocks(self, stage: str, session: StageSession, state: EvaluationState) -> None:
        """What the techniques of this stage need inside its transformer blocks."""
        needs = {need for t in REGISTRY.values() if stage in t.acts_on(self.config[t.name]) for need in t.needs}
        if stage == SPARSE_STRUCTURE and needs & {"layout_only", "subset"}:
            streams = PartialStreams(self._host.stream_blocks(), state, keep="layout_only" in needs)
            streams.attach(self._patches)
            session.keepers.append(streams)
        if "block_stack" in needs:
            stack = BlockStack(
                self._host.block_stack(stage),
                state,
                lambda: session.block_policy,
                lambda: session.step_index,
                self._host.block_states(stage),
            )
            stack.attach(self._patches)
            session.keepers.append(stack)

    def _on(self, kind: str, stage: str) -> list[Technique]:
        """Techniques of a kind that are on and act on a stage."""
        return [t for t in REGISTRY.values() if t.kind == kind and stage in t.acts_on(self.config[t.name])]

    def _step_count(self, stage: str) -> dict[str, Any]:
        """Step count and mode of a stage, where a control sets them."""
        for technique in self._on("steps", stage):
            settings = self.config[technique.name]
            return {"steps": settings.steps(stage), "shortcut": settings.distilled(stage)}
        return {}

    def _maker(self, kind: str, stage: str) -> Callable[[Trajectory], Any]:
        """Maker of the one policy of a kind that has a say in a run of this stage."""
        techniques = self._on(kind, stage)
        around = self._on("layout", stage) if kind == "velocity" else []

        def make(trajectory: Trajectory) -> Any:
            made = (t.make(self.config[t.name], trajectory) for t in techniques if t.make is not None)
            policy = next((policy for policy in made if policy is not None), None)
            for technique in around if trajectory.layout else ():
                if policy is not None and technique.make is not None:
                    policy = technique.make(self.config[technique.name], trajectory, policy)
            return policy

        return make


class _Recorder:
    def __init__(self, report: Report, ledger: Ledger) -> None:
        self._report, self._ledger = report, ledger

    def add_object(self, seconds: dict[str, float]) -> None:
        self._ledger.finished(seconds)
        self._report.add_object(seconds)


class _CountedVoxels:
    """A voxel policy whose effect is counted."""

    def __init__(self, policy: Any, report: Report, ledger: Ledger) -> None:
        self._policy, self._report, self._ledger = policy, report, ledger

    def reduce(self, voxels: VoxelSet) -> Any:
        merged = self._policy.reduce(voxels)
        before, after = len(voxels.coords), len(voxels.coords if merged is None else merged.coords)
        self._report.voxels_before += before
        self._report.voxels_after += after
        self._ledger.merged(before, after)
        return merged


def _alone(lock: threading.RLock, original: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which other threads wait for."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return original(*args, **kwargs)

    return call


def _ending(end: Callable[[], None], broke_off: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with `end` called after it, and `broke_off` where it raised."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except BaseException:
            broke_off()
            raise
        finally:
            end()

    return call
