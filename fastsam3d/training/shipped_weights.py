"""Reads the weights that the package ships, as the starting point of another training."""

from __future__ import annotations

from torch import Tensor

from fastsam3d.sam3d.checkpoints.folder import CheckpointFolder, parts_of, read_state
from fastsam3d.sam3d.checkpoints.loading import checkpoint_directory

SAMPLER_PREFIX = "reverse_fn.backbone."
"""Prefix of the network's names in the file of a generator, which holds a sampler."""


def shipped_part(model: str, network: str, part: str | None = None) -> dict[str, Tensor]:
    """Reads the weights of one network, or of the condition embedder in its file.

    Args:
        model: name of the model, such as `mini`.
        network: name of the file without its ending, such as `ss_generator`.
        part: name of the part inside the file; by default the network itself.

    Raises:
        UserError: the package has no weights of that model.
    """
    file = CheckpointFolder(checkpoint_directory(model)).file(network)
    state = parts_of(network, read_state(file))[network if part is None else part]
    return {name.removeprefix(SAMPLER_PREFIX): value for name, value in state.items()}
