"""What the settings mean for one model: who ranks, at which layers tokens leave, how many stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastsam3d.errors import UserError
from fastsam3d.mllm.budgets import ADAPTIVE, ORDER, Budget
from fastsam3d.mllm.capabilities import PREFILL, SCORER
from fastsam3d.mllm.registry import REGISTRY
from fastsam3d.mllm.vocabulary import Scorer

if TYPE_CHECKING:
    from fastsam3d.acceleration.presets import AccelerationConfig


@dataclass(frozen=True)
class Plan:
    """How visual tokens leave one model.

    Attributes:
        scorer: ranks the groups.
        budget: says how many of them stay at each cut.
        cuts: layers from which tokens are missing, ascending.
        mask: the tokens stay and are masked instead: the plain twin, of equal results and no saving.
    """

    scorer: Scorer
    budget: Budget
    cuts: tuple[int, ...]
    mask: bool


def plan_of(config: AccelerationConfig, layers: int) -> Plan | None:
    """The plan of settings for a model of so many layers; None where nothing is pruned.

    Raises:
        UserError: a cut lies outside the model, or before the layer that the scorer reads.
    """
    pruning = config["pruning"]
    if not pruning.enabled:
        return None
    technique = next(t for t in REGISTRY.values() if t.kind == SCORER and t.acts_on(config[t.name]) == (PREFILL,))
    assert technique.make is not None
    scorer: Scorer = technique.make(config[technique.name])
    first = pruning.first_layer(layers)
    if pruning.layer < 0 and scorer.needs_layer:
        first = max(first, 1)
    if not 0 <= first < layers:
        raise UserError(f"pruning.layer is {first}, and the model has the layers 0 to {layers - 1}: choose one of them")
    if scorer.needs_layer and first == 0:
        raise UserError(
            f"{technique.name} reads the attention of the layer before the cut, and before layer 0 there is none: set "
            "pruning.layer to 1 or more"
        )
    if scorer.scale == ORDER and pruning.budget in ADAPTIVE:
        raise UserError(
            f"{technique.name} gives an order and no masses, which pruning.budget={pruning.budget} needs: set "
            "pruning.budget to share or fixed"
        )
    return Plan(scorer, pruning.amount(), scorer.cuts(first, layers), pruning.mask)
