"""Which seeds are held out; apart from what makes objects, so that help texts need no PyTorch."""

HELD_OUT_SEED = 1_000_000_000
"""Seeds from here on are for evaluation; training uses smaller ones."""
