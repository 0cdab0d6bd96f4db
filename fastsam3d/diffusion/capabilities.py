"""Names of stages and modalities, and of what a technique may need of a host."""

from __future__ import annotations

SPARSE_STRUCTURE = "sparse_structure"
STRUCTURED_LATENT = "structured_latent"
STAGES = (SPARSE_STRUCTURE, STRUCTURED_LATENT)

SHAPE = "shape"
"""Modality of the sparse-structure stage that carries the occupancy; all others there are layout."""
LATENT = "latent"
"""Name under which a stage with a single tensor shows it to policies."""

CAPABILITIES = {
    "conditional_only": "evaluations without their unconditional pass",
    "subset": "evaluations of some tokens alone",
    "tokens": "evaluations that compute some transformer tokens of the latent stage",
    "layout_only": "evaluations of the layout alone, against kept keys and values of the shape",
    "occupancy": "a decoder of occupancy while the first stage runs",
    "block_stack": "access to the stack of transformer blocks",
    "shortcut": "a distilled few-step mode of the first stage",
}
"""What a technique may need of a host beyond whole evaluations, and how to say it."""
ONLY_IN = {
    "layout_only": SPARSE_STRUCTURE,
    "occupancy": SPARSE_STRUCTURE,
    "shortcut": SPARSE_STRUCTURE,
    "tokens": STRUCTURED_LATENT,
}
"""The stage of those that mean something in one stage only."""
