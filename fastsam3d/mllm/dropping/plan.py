"""What the settings mean for one model: which scorer ranks, at which layers tokens leave, how many stay."""

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
        cuts: layers at which tokens leave, ascending.
        mask: the tokens are masked and do not leave. Results are equal, and nothing is saved.
    """

    scorer: Scorer
    budget: Budget
    cuts: tuple[int, ...]
    mask: bool


def plan_of(config: AccelerationConfig, layers: int) -> Plan | None:
    """Makes the plan for a model of `layers` layers; None where nothing is pruned.

    Raises:
        UserError: a cut lies outside the model; or the cut is at layer 0 and the scorer reads the layer before it; or
            the budget is adaptive and the scorer gives only an order.
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
            f"{technique.name} gives only an order of the groups, and pruning.budget={pruning.budget} needs shares: "
            "set pruning.budget to share or fixed"
        )
    return Plan(scorer, pruning.amount(), scorer.cuts(first, layers), pruning.mask)
