"""Names of stages and modalities, what a technique may need of a host, and which techniques clash."""

from __future__ import annotations

from collections.abc import Sequence

from fastsam3d.acceleration.compatibility import Capability, Rules, Support
from fastsam3d.acceleration.registry import Technique

SPARSE_STRUCTURE = "sparse_structure"
STRUCTURED_LATENT = "structured_latent"
STAGES = (SPARSE_STRUCTURE, STRUCTURED_LATENT)
"""Kinds of sampled stages. Techniques, settings and presets speak of kinds; a host gives each stage its own name."""

SHAPE = "shape"
"""Modality of the sparse-structure stage that carries the occupancy; all others there are layout."""
LATENT = "latent"
"""Name under which a stage with a single tensor shows it to policies."""

CAPABILITIES = {
    "conditional_only": Capability("evaluations without their unconditional pass"),
    "subset": Capability("evaluations of some tokens alone"),
    "tokens": Capability("evaluations that compute some transformer tokens of the latent stage", STRUCTURED_LATENT),
    "layout_only": Capability(
        "evaluations of the layout alone, against kept keys and values of the shape", SPARSE_STRUCTURE
    ),
    "occupancy": Capability("a decoder of occupancy while the first stage runs", SPARSE_STRUCTURE),
    "block_stack": Capability("access to the stack of transformer blocks"),
    "shortcut": Capability("a distilled few-step mode of the first stage", SPARSE_STRUCTURE),
}
"""What a technique may need of a host beyond whole evaluations."""
SOME_TOKENS = frozenset({"subset", "tokens"})
"""Needs of techniques that leave out tokens of a network."""
INSIDE = frozenset({"layout_only", "block_stack", *SOME_TOKENS})
"""Needs of techniques that keep or leave out something inside a network."""

MULTISTEP = ("multistep", "latent_multistep")
"""Velocity techniques that forecast no step."""


def _clash(first: Technique, second: Technique, shared: Sequence[str]) -> str | None:
    """Returns the reason why `first` cannot be on with `second` in the stages of both; None where it can."""
    network = RULES.stages[shared[0]]
    distilled = "shortcut" in first.needs and SPARSE_STRUCTURE in shared
    if distilled and second.kind in ("velocity", "blocks", "evaluation"):
        return f"the distilled mode of {network} has neither steps to spare nor guidance"
    if first.name in MULTISTEP and second.kind == "layout":
        return f"{first.name} computes every step of {network}, so that {second.name} has nothing to do"
    if first.kind == "blocks" and second.kind == "velocity":
        return f"both reuse what {network} did at earlier steps"
    if first.kind == "blocks" and any(SOME_TOKENS & set(RULES.needs_in(second, stage)) for stage in shared):
        return f"the change of the blocks of {network} that the one reuses is that of all tokens, which the other lacks"
    if "subset" in first.needs and second.kind in ("evaluation", "layout"):
        return f"{first.name} runs {network} on some tokens alone, which {second.name} cannot follow"
    return None


RULES = Rules(
    capabilities=CAPABILITIES,
    stages={SPARSE_STRUCTURE: "the sparse-structure network", STRUCTURED_LATENT: "the latent network"},
    one_a_stage={
        "velocity": "both decide when {stage} runs",
        "evaluation": "both decide how {stage} is evaluated",
        "blocks": "both decide which blocks of {stage} run",
    },
    one_a_model={"voxels": "both change the set of voxels", "steps": "both set the number of steps"},
    builds_on={"layout": Support("velocity", "nothing forecasts steps of {stage}", "step_caching")},
    clash=_clash,
)
"""What clashes among diffusion techniques.

Different kinds compose: one policy that decides when a network runs, one that decides how, one that changes the voxels,
a control of the number of steps, and the exact savings beneath all of them."""
