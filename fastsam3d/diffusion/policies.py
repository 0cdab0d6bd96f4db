"""Makes the policies of the techniques that are switched on, and attaches their parts inside the networks."""

from __future__ import annotations

from typing import Any

from fastsam3d.acceleration.patching import Patches
from fastsam3d.acceleration.presets import AccelerationConfig
from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.capabilities import INSIDE, RULES, SPARSE_STRUCTURE
from fastsam3d.diffusion.evaluations.options import CheckedPolicy
from fastsam3d.diffusion.host import Host
from fastsam3d.diffusion.partial.block_stack import BlockStack
from fastsam3d.diffusion.partial.blocks import PartialBlocks
from fastsam3d.diffusion.partial.streams import PartialStreams
from fastsam3d.diffusion.registry import REGISTRY
from fastsam3d.diffusion.stage_runner import Keeper, StageRunner
from fastsam3d.diffusion.vocabulary import Trajectory
from fastsam3d.errors import UserError


class Policies:
    """Policies of the techniques that are switched on.

    Args:
        config: settings of every technique.
    """

    def __init__(self, config: AccelerationConfig) -> None:
        self._config = config

    def acting(self, kind: str, stage_kind: str) -> list[Technique]:
        """Techniques of a kind that are switched on and act on a kind of stage."""
        techniques = [t for t in REGISTRY.values() if t.kind == kind]
        return [t for t in techniques if stage_kind in t.acts_on(self._config[t.name])]

    def inside(self, stage_kind: str) -> tuple[str, ...]:
        """Names of the techniques that work inside the network of a kind of stage."""
        acting = [t for t in REGISTRY.values() if stage_kind in t.acts_on(self._config[t.name])]
        return tuple(t.name for t in acting if INSIDE & set(RULES.needs_in(t, stage_kind)))

    def decides_evaluations(self, stage_kind: str) -> bool:
        """Tells whether a technique decides how the network of a kind of stage is evaluated."""
        return bool(self.acting("evaluation", stage_kind))

    def step_count(self, stage_kind: str) -> dict[str, Any]:
        """`steps`, `shortcut` and `grid` of a kind of stage, where a technique sets them."""
        chosen: dict[str, Any] = {}
        for technique in self.acting("steps", stage_kind):
            settings = self._config[technique.name]
            chosen |= {"steps": settings.steps(stage_kind), "shortcut": settings.distilled(stage_kind)}
        for technique in self.acting("velocity", stage_kind):
            if (grid := getattr(self._config[technique.name], "grid", None)) is not None:
                chosen["grid"] = grid
        return chosen

    def set_steps(self, stage_kind: str) -> list[str]:
        """Names of the techniques that ask for another number of steps in a kind of stage."""
        grids = [t for t in self.acting("velocity", stage_kind) if hasattr(self._config[t.name], "grid")]
        return [technique.name for technique in (*self.acting("steps", stage_kind), *grids)]

    def voxels(self, stage_kind: str) -> Any:
        """The policy that changes the voxels of a kind of stage; None without one."""
        made = [t.make(self._config[t.name]) for t in self.acting("voxels", stage_kind) if t.make is not None]
        return made[0] if made else None

    def velocity(self, stage_kind: str, trajectory: Trajectory) -> Any:
        """The policy that decides when the network runs in a run, with layout policies around it; None without one."""
        technique, policy = self._made("velocity", stage_kind, trajectory)
        if technique is None:
            return None
        policy = CheckedPolicy(policy, trajectory, technique)
        for outer in self.acting("layout", stage_kind) if trajectory.layout else ():
            if outer.make is not None:
                made = outer.make(self._config[outer.name], trajectory, policy)
                # It hands on what the policy inside asks for.
                policy = CheckedPolicy(made, trajectory, outer, technique)
        return policy

    def evaluation(self, stage_kind: str, trajectory: Trajectory) -> Any:
        """The policy that decides how the network runs in a run; None without one."""
        technique, policy = self._made("evaluation", stage_kind, trajectory)
        return None if technique is None else CheckedPolicy(policy, trajectory, technique)

    def blocks(self, stage_kind: str, trajectory: Trajectory) -> Any:
        """The policy that decides when a stack of blocks is replaced by its last change; None without one."""
        return self._made("blocks", stage_kind, trajectory)[1]

    def _made(self, kind: str, stage_kind: str, trajectory: Trajectory) -> tuple[Technique | None, Any]:
        """The one technique of a kind that has a say in a run, and its policy."""
        for technique in self.acting(kind, stage_kind):
            policy = None if technique.make is None else technique.make(self._config[technique.name], trajectory)
            if policy is not None:
                return technique, policy
        return None, None

    def attach_inside(
        self, host: Host, patches: Patches, stage: str, stage_kind: str, runner: StageRunner
    ) -> list[Keeper]:
        """Attaches what the techniques of a stage need inside its transformer blocks.

        Returns:
            What keeps values for the length of a run.

        Raises:
            UserError: the host offers what they need and lists no blocks.
        """
        blocks, state = blocks_needed(host, self._config, stage, stage_kind), runner.state
        keepers: list[Keeper] = []
        if "tokens" in blocks:
            tokens = PartialBlocks(blocks["tokens"], state)
            tokens.attach(patches)
            keepers.append(tokens)
        if "streams" in blocks:
            streams = PartialStreams(blocks["streams"], state, keep="layout_only" in self._config.needs(stage_kind))
            streams.attach(patches)
            keepers.append(streams)
        if "block_stack" in blocks:
            stack = BlockStack(
                blocks["block_stack"],
                state,
                lambda: runner.block_policy,
                lambda: runner.step_index,
                host.block_states(stage),
            )
            stack.attach(patches)
            keepers.append(stack)
        return keepers


def blocks_needed(host: Host, config: AccelerationConfig, stage: str, stage_kind: str) -> dict[str, list[Any]]:
    """Sites of the transformer blocks in which the techniques of a stage work: "tokens", "streams", "block_stack".

    Raises:
        UserError: the host offers what they need and lists no blocks.
    """
    needs = config.needs(stage_kind)
    found: dict[str, list[Any]] = {}
    if "tokens" in needs:
        found["tokens"] = _listed(host, host.latent_blocks(stage), stage, "tokens")
    if stage_kind == SPARSE_STRUCTURE and (wanted := sorted(needs & {"layout_only", "subset"})):
        found["streams"] = _listed(host, host.stream_blocks(stage), stage, wanted[0])
    if "block_stack" in needs:
        found["block_stack"] = _listed(host, host.block_stack(stage), stage, "block_stack")
    return found


def _listed(host: Host, blocks: list[Any], stage: str, need: str) -> list[Any]:
    """Checks that a host which offers `need` lists blocks, and returns them."""
    if not blocks:
        raise UserError(
            f"{host.name} says that it offers {need!r} in the {stage} stage and lists no transformer blocks there: "
            f"list them in its host, or take {need!r} out of the host's capabilities."
        )
    return blocks
