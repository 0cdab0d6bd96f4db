"""Names of kinds of techniques, what they may need of a host, and which of them clash."""

from __future__ import annotations

from fastsam3d.acceleration.compatibility import Capability, Rules, Support

PREFILL = "prefill"
STAGES = (PREFILL,)
"""Kinds of stages. Tokens leave while the prompt is read; what is generated afterwards sees what has stayed."""
SCORER, PRUNING = "scorer", "pruning"
"""Kinds of techniques: what ranks the visual tokens, and the one that says where and how many of them leave."""

ATTENTION = "attention"
CAPABILITIES = {ATTENTION: Capability("attention weights of single rows of a layer")}

RULES = Rules(
    capabilities=CAPABILITIES,
    stages={PREFILL: "the language model"},
    one_a_model={SCORER: "both rank the visual tokens"},
    builds_on={
        SCORER: Support(PRUNING, "nothing says how many visual tokens stay in {stage}", "pruning"),
        PRUNING: Support(SCORER, "nothing ranks the visual tokens of {stage}", "fastv"),
    },
)
