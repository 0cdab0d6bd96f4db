"""Memory budgets: how much a run needs stage by stage, and where its weights have to be so that it fits.

Weights are counted exactly, on the meta device. Working memory follows from the networks' sizes by the constants
below, which were read off runs of the real classes with every tensor's lifetime recorded; a CUDA library's own
workspaces come on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from fastsam3d.errors import UserError
from fastsam3d.models.build import build_networks
from fastsam3d.models.config import ConditionEmbedderConfig, ModelConfig
from fastsam3d.models.precision import store_half
from fastsam3d.pipeline.residency import RUN_ORDER

GIB = 2**30
BUDGETS: Mapping[str, int | None] = {"8gb": 8 * GIB, "12gb": 12 * GIB, "24gb": 24 * GIB, "none": None}
"""Sizes of cards by name of the setting."""
RESERVE = GIB
"""Of a card's memory for the CUDA context, library handles and fragmentation."""
PRECISIONS = ("float32", "float16", "bfloat16")
TYPICAL_SHARE = 0.1
"""Voxels of a typical object as a share of the grid's cells: 26,300 of 64^3 in public logs (section 6)."""

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

# Bytes in half precision (twice as many in fp32) at the peak of a stage.
STRUCTURE_TOKEN = 31 * 2**10  # a token of width 1024: residual in fp32, feed-forward of four widths
CONTEXT_TOKEN = 8 * 2**10  # a condition token of width 1024: keys and values, and their contiguous copies
IMAGE_TOKEN = 34 * 2**10  # a token of the image embedder, width 1024
POINT_TOKEN = 11.5 * 2**10  # a point of the point-map embedder, width 512
LATENT_VOXEL = 10 * 2**10  # a voxel of the latent stage, width 1024: four to a token, tables, convolutions
GAUSSIAN_VOXEL = 21 * 2**10  # a voxel of a decoder's trunk, width 768
FINE_CHANNEL = 15.0  # a channel of a finest voxel in the mesh decoder: group normalisation in fp32, three copies
SURFACE_VOXEL = 1500  # a finest voxel during extraction: features in fp32, neighbours, corner values, corner ids
GATHERED = 1 << 27  # elements that a sparse convolution gathers at a time on a GPU
WORKSPACE = 256 * 2**20  # of cuBLAS and cuDNN


@dataclass(frozen=True)
class MemoryPlan:
    """How a pipeline keeps to a budget.

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
    """What a run needs.

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
        """Whether it keeps to the plan's budget."""
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
        need = estimate_peak(
            self.config, voxels=voxels, formats=self.formats, precision=self.precision, plan=self.plan
        )
        if not need.fits:
            raise UserError(_refusal(self.config, self.memory, self.plan.budget, voxels, self.formats, self.precision))


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
    token_carving: bool = False,
    plan: MemoryPlan | None = None,
) -> PeakEstimate:
    """What one object needs on the device, stage by stage.

    Args:
        config: of the model.
        memory: budget; decides where weights are unless `plan` does.
        voxels: of the latent stage; a typical object by default.
        formats: what is decoded; decoders of other formats take no memory.
        precision: `float32`, or half precision with weights stored so.
        condition_cache: the acceleration keeps keys and values of the condition (all presets but `off`).
        token_carving: it keeps keys and values of the latent tokens.
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
    work = _working_memory(config, voxels, precision)
    if condition_cache and plan.condition_cache:
        for stage, kept in _condition_cache(config, precision).items():
            work[stage] += kept
    if token_carving:
        work["structured_latent"] += _kept_tokens(config, voxels, precision)
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


@lru_cache(maxsize=32)
def weight_bytes(config: ModelConfig, formats: tuple[str, ...], precision: str) -> Mapping[str, int]:
    """Bytes of every network that `formats` need, by name, as stored on a CUDA device."""
    sizes = {}
    with torch.device("meta"):
        for name, network in build_networks(config, formats):
            if precision != "float32":
                store_half(name, network, getattr(torch, precision), torch.device("cuda"))
            sizes[name] = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    return sizes


def _working_memory(config: ModelConfig, voxels: int, precision: str) -> dict[str, float]:
    factor = 2.0 if precision == "float32" else 1.0
    ss, slat, mesh = config.ss_generator, config.slat_generator, config.slat_decoder_mesh
    widths = [*mesh.upsample_channels]
    finest = voxels * 8 ** len(widths)
    decoded = config.resolution**3 * config.ss_decoder.channels[-1]
    context_ss = _condition_tokens(config.ss_condition_embedder)
    context_slat = _condition_tokens(config.slat_condition_embedder)
    gathered = GATHERED * 2  # of half-precision numbers
    trunk = voxels * GAUSSIAN_VOXEL * mesh.model_channels / 768
    work = {
        "ss_condition": _embedding(config.ss_condition_embedder),
        "sparse_structure": (ss.latent_resolution**3 * STRUCTURE_TOKEN + context_ss * CONTEXT_TOKEN)
        * ss.model_channels
        / 1024,
        "ss_decode": 4.0 * decoded * 2,
        "slat_condition": _embedding(config.slat_condition_embedder),
        "structured_latent": (voxels * LATENT_VOXEL + context_slat * CONTEXT_TOKEN) * slat.model_channels / 1024
        + gathered,
        "mesh_decode": max(trunk, finest * FINE_CHANNEL * widths[-1] + gathered),
        "surface": float(finest * SURFACE_VOXEL) / factor,  # in fp32 whatever the precision
        "gaussian_decode": trunk,
    }
    return {stage: factor * size for stage, size in work.items()}


def _condition_tokens(config: ConditionEmbedderConfig) -> int:
    tokens = 0
    for part in (config.image, config.mask):
        tokens += 2 * (1 + (part.image_size // part.patch) ** 2 + (part.registers if part.prenorm_features else 0))
    if config.pointmap is not None:
        tokens += 2 * (config.pointmap.input_size // config.pointmap.patch) ** 2
    return tokens


def _embedding(config: ConditionEmbedderConfig) -> float:
    image = config.image
    tokens = (image.image_size // image.patch) ** 2 + 1 + image.registers
    largest = tokens * IMAGE_TOKEN * image.channels / 1024
    if config.pointmap is not None:
        points = config.pointmap.input_size**2 * (1 + 1 / config.pointmap.patch**2)
        largest = max(largest, points * POINT_TOKEN * config.pointmap.channels / 512)
    return largest + _condition_tokens(config) * config.channels * 4 * 2  # the parts, and their concatenation


def _condition_cache(config: ModelConfig, precision: str) -> dict[str, int]:
    item = 4 if precision == "float32" else 2
    ss, slat = config.ss_generator, config.slat_generator
    streams = 2  # shape and layout have keys and values of their own
    return {
        "sparse_structure": streams
        * ss.num_blocks
        * _condition_tokens(config.ss_condition_embedder)
        * 2
        * ss.model_channels
        * item,
        "structured_latent": slat.num_blocks
        * _condition_tokens(config.slat_condition_embedder)
        * 2
        * slat.model_channels
        * item,
    }


def _kept_tokens(config: ModelConfig, voxels: int, precision: str) -> float:
    item = 4 if precision == "float32" else 2
    slat = config.slat_generator
    branches, cells = 2, voxels / 4
    return branches * slat.num_blocks * cells * 2 * slat.model_channels * item
