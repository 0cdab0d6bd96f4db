"""Memory budgets: how much a run needs stage by stage, and where its weights have to be so that it fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from fastsam3d.errors import UserError
from fastsam3d.sam3d.memory.costs import (
    WORKSPACE,
    kept_by_graphs,
    kept_condition,
    kept_tokens,
    weight_bytes,
    working_memory,
)
from fastsam3d.sam3d.memory.residency import RUN_ORDER
from fastsam3d.sam3d.models.config import ModelConfig

GIB = 2**30
BUDGETS: Mapping[str, int | None] = {"8gb": 8 * GIB, "12gb": 12 * GIB, "24gb": 24 * GIB, "none": None}
"""Sizes of cards by name of the setting."""
RESERVE = GIB
"""Of a card's memory for the CUDA context, library handles and fragmentation."""
TYPICAL_SHARE = 0.1
"""Voxels of a typical object as a share of the cells of the grid: 26,300 of 64^3 (docs/facts.md, section S6)."""

STAGES = {
    "ss_condition": "ss_condition_embedder",
    "sparse_structure": "ss_generator",
    "ss_decode": "ss_decoder",
    "slat_condition": "slat_condition_embedder",
    "structured_latent": "slat_generator",
    "mesh_decode": "slat_decoder_mesh",
    "surface": "slat_decoder_mesh",
    "gaussian_decode": "slat_decoder_gs",
}
"""Stages that use the device, with the network that each needs; the surface is found after its decoder has left."""


@dataclass(frozen=True)
class MemoryPlan:
    """Plan by which a pipeline keeps to a budget.

    Attributes:
        budget: bytes that tensors may take on the device; None without a limit.
        staged: weights live on the host and move to the device for their stage.
        overlap: the next stage's weights are copied during the present one.
        condition_cache: projections of the condition may be kept over a run.
    """

    budget: int | None = None
    staged: bool = False
    overlap: bool = False
    condition_cache: bool = True


PLANS = (
    MemoryPlan(),
    MemoryPlan(staged=True, overlap=True),
    MemoryPlan(staged=True),
    MemoryPlan(staged=True, condition_cache=False),
)
"""Ways to run, fastest first."""


@dataclass(frozen=True)
class PeakEstimate:
    """Estimate of the memory that a run needs.

    Attributes:
        stages: bytes at the peak of each stage, weights on the device included.
        weights: bytes of all weights.
        plan: where the weights are.
    """

    stages: Mapping[str, int]
    weights: int
    plan: MemoryPlan

    @property
    def peak(self) -> int:
        """Bytes of the largest stage."""
        return max(self.stages.values())

    @property
    def largest(self) -> str:
        """Name of that stage."""
        return max(self.stages, key=lambda name: self.stages[name])

    @property
    def fits(self) -> bool:
        """Tells whether the estimate keeps to the plan's budget."""
        return self.plan.budget is None or self.peak <= self.plan.budget


@dataclass(frozen=True)
class MemoryLimit:
    """The budget of a loaded pipeline.

    Attributes:
        config, memory, formats, precision: what was loaded, and under which setting.
        plan: how it keeps to the budget.
    """

    config: ModelConfig
    memory: str
    formats: tuple[str, ...]
    precision: str
    plan: MemoryPlan

    def check(self, voxels: int) -> None:
        """Refuses an object before its latent stage begins, where it would not fit.

        Raises:
            UserError: names the stage, what it needs and what would fit.
        """
        if self.plan.budget is None:
            return  # reckoning takes seconds the first time: the networks are built without weights
        need = estimate_peak(self.config, voxels=voxels, formats=self.formats, precision=self.precision, plan=self.plan)
        if not need.fits:
            raise UserError(_refusal(self.config, self.memory, self.plan.budget, voxels, self.formats, self.precision))

    def has_room_for_graphs(self) -> bool:
        """Tells whether recorded evaluations of the first stage, which stay, fit beside the largest stage.

        Never where weights move: recordings hold their addresses.
        """
        if self.plan.budget is None or self.plan.staged:
            return not self.plan.staged
        return estimate_peak(
            self.config,
            voxels=self.config.max_voxels,
            formats=self.formats,
            precision=self.precision,
            cuda_graphs=True,
            plan=self.plan,
        ).fits


def plan_limit(
    config: ModelConfig, memory: str, formats: Iterable[str], precision: str, device: torch.device
) -> MemoryLimit:
    """The budget under which a pipeline will be loaded; on a CUDA device no more than the card has.

    Raises:
        UserError: a typical object would not fit, or the setting is unknown.
    """
    budget = budget_bytes(memory)
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device).total_memory - RESERVE
        if budget is None and estimate_peak(config, formats=formats, precision=precision).peak > card:
            fitting = [name for name, size in BUDGETS.items() if size is not None and size - RESERVE <= card]
            raise UserError(
                f"{torch.cuda.get_device_name(device)} has {_gib(card + RESERVE)}, too little for model={config.name} "
                f"with precision={precision}. Try {f'memory={fitting[-1]}, or ' if fitting else ''}precision=float16."
            )
        budget = None if budget is None else min(budget, card)
    formats = tuple(formats)
    plan = PLANS[0] if budget is None else choose_plan(config, memory, budget, formats=formats, precision=precision)
    return MemoryLimit(config, memory, formats, precision, plan)


def budget_bytes(memory: str) -> int | None:
    """Bytes that tensors may take under `memory`, `8gb` and so on; None for `none`.

    Raises:
        UserError: an unknown setting.
    """
    if memory not in BUDGETS:
        raise UserError(f"memory={memory} is not possible: choose from {', '.join(BUDGETS)}.")
    card = BUDGETS[memory]
    return None if card is None else card - RESERVE


def typical_voxels(config: ModelConfig) -> int:
    """Voxels of a typical object."""
    return min(round(TYPICAL_SHARE * config.resolution**3), config.max_voxels)


def estimate_peak(
    config: ModelConfig,
    memory: str = "none",
    *,
    voxels: int | None = None,
    formats: Iterable[str] = ("mesh", "gaussian"),
    precision: str = "float32",
    condition_cache: bool = True,
    partial_tokens: bool = False,
    cuda_graphs: bool = False,
    plan: MemoryPlan | None = None,
) -> PeakEstimate:
    """Estimates the memory that one object needs on the device, stage by stage.

    Args:
        config: of the model.
        memory: budget; decides where weights are unless `plan` does.
        voxels: of the latent stage; a typical object by default.
        formats: what is decoded; decoders of other formats take no memory.
        precision: `float32`, or half precision with weights stored so.
        condition_cache: the acceleration keeps keys and values of the condition (all presets but `off`).
        partial_tokens: it computes some latent tokens, and keeps keys and values of all of them for that.
        cuda_graphs: it replays the first stage, and what that needs stays through all stages. Not where weights move.
        plan: how the weights are kept.
    """
    formats = tuple(formats)
    voxels = typical_voxels(config) if voxels is None else voxels
    if plan is None:
        budget = budget_bytes(memory)
        plan = PLANS[0]
        if budget is not None:
            plan = choose_plan(config, memory, budget, formats=formats, precision=precision)
    weights = weight_bytes(config, formats, precision)
    work = working_memory(config, voxels, precision)
    if condition_cache and plan.condition_cache:
        for stage, kept in kept_condition(config, precision).items():
            work[stage] += kept
    if cuda_graphs and not plan.staged:
        held = kept_by_graphs(config, precision, condition_cache and plan.condition_cache)
        work = {stage: size + held for stage, size in work.items()}
        if condition_cache and plan.condition_cache:  # counted above already
            work["sparse_structure"] -= kept_condition(config, precision)["sparse_structure"]
    if partial_tokens:
        work["structured_latent"] += kept_tokens(config, voxels, precision)
    present = [name for name in RUN_ORDER if name in weights]
    stages = {}
    for stage, network in STAGES.items():
        if network not in weights:
            continue
        resident = sum(weights.values()) if not plan.staged else 0
        if plan.staged and stage != "surface":
            following = present[present.index(network) + 1 :][:1] if plan.overlap else []
            resident = sum(weights[name] for name in (network, *following))
        stages[stage] = int(resident + work[stage] + WORKSPACE)
    return PeakEstimate(stages, sum(weights.values()), plan)


def choose_plan(
    config: ModelConfig, memory: str, budget: int, *, formats: tuple[str, ...], precision: str
) -> MemoryPlan:
    """The fastest way to run that keeps to a budget: for the largest object if possible, else for a typical one.

    Args:
        memory: name of the budget, for the message.
        budget: bytes.

    Raises:
        UserError: not even a typical object fits; says what would.
    """
    for voxels in (config.max_voxels, typical_voxels(config)):
        for plan in PLANS:
            limited = replace(plan, budget=budget)
            if estimate_peak(config, voxels=voxels, formats=formats, precision=precision, plan=limited).fits:
                return limited
    raise UserError(_refusal(config, memory, budget, typical_voxels(config), formats, precision))


def _refusal(
    config: ModelConfig, memory: str, budget: int | None, voxels: int, formats: tuple[str, ...], precision: str
) -> str:
    smallest = replace(PLANS[-1], budget=budget)
    need = estimate_peak(config, voxels=voxels, formats=formats, precision=precision, plan=smallest)
    ways = []
    others = [("float16", formats)]
    if config.slat_decoder_gs is not None:
        others += [(precision, ("gaussian",)), ("float16", ("gaussian",))]
    for other_precision, other_formats in others:
        changes = []
        if other_precision != precision:
            changes.append(f"precision={other_precision}")
        if other_formats != formats:
            changes.append(f"formats=[{','.join(other_formats)}]")
        other = estimate_peak(config, voxels=voxels, plan=smallest, precision=other_precision, formats=other_formats)
        if changes and other.fits:
            ways.append(f"{' '.join(changes)} ({_gib(other.peak)})")
    larger = [f"memory={name}" for name, card in BUDGETS.items() if card is not None and need.peak <= card - RESERVE]
    ways += larger[:1] or ["memory=none"]
    return (
        f"memory={memory} leaves {_gib(budget or 0)} for tensors, but an object of {voxels:,} voxels needs "
        f"{_gib(need.peak)} with precision={precision} (stage {need.largest}). What fits: {', or '.join(ways)}."
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
