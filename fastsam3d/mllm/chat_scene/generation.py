"""How Chat-Scene writes its answers: settings of the generation, and the penalty of repetitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

GENERATION: dict[str, Any] = {
    "num_beams": 5,
    "do_sample": False,
    "max_new_tokens": 64,
    # "At least one token" of the published evaluation. `min_length` would count the prompt here, and mean nothing.
    "min_new_tokens": 1,
    "repetition_penalty": 3.0,
    "length_penalty": 1.0,
}
"""Settings of Chat-Scene and Fast3D. The penalty sees only generated tokens: the prompt has no token ids."""


class RepetitionPenalty:
    """Makes tokens less likely that were already generated (CTRL, Keskar et al., 2019, section 4.1).

    The penalty of transformers 5.24 is not used. If the prompt is given as embeddings, it skips as many generated
    tokens as the prompt has padding, so an answer would depend on the other prompts of its batch.

    Args:
        penalty: divides positive scores and multiplies negative ones; 1 changes nothing.
    """

    def __init__(self, penalty: float) -> None:
        self._penalty = penalty

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The changed scores, (rows, vocabulary).

        Args:
            input_ids: (rows, tokens) generated so far.
            scores: (rows, vocabulary).
        """
        seen = scores.gather(1, input_ids)
        return scores.scatter(1, input_ids, torch.where(seen < 0, seen * self._penalty, seen / self._penalty))


def generation_arguments(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate`: those of `GENERATION` with changes, and `RepetitionPenalty` as a logits processor."""
    from transformers import LogitsProcessorList

    arguments = GENERATION | dict(changes)
    penalty = arguments.pop("repetition_penalty")
    own = [] if penalty in (None, 1) else [RepetitionPenalty(penalty)]
    processors = LogitsProcessorList([*own, *(arguments.pop("logits_processor", None) or [])])
    return arguments | {"logits_processor": processors}
