"""Loads Segment Anything for marking, where it is installed."""

from __future__ import annotations

from pathlib import Path

from fastsam3d.app.segmentation import SamSegmenter
from fastsam3d.errors import UserError


def load_sam(checkpoint: str | Path, model: str = "vit_b", device: str = "auto") -> SamSegmenter:
    """A segmenter with the weights of a checkpoint file.

    Args:
        checkpoint: as published by its authors, `.pth`.
        model: `vit_b`, `vit_l` or `vit_h`.

    Raises:
        UserError: the package or the file is missing, or they do not fit each other.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {path}: sam_checkpoint needs Segment Anything weights.")
    try:
        from segment_anything import SamPredictor, sam_model_registry
    except ImportError:
        raise UserError(
            "sam_checkpoint needs the package segment_anything; without it objects are marked by GrabCut."
        ) from None
    if model not in sam_model_registry:
        raise UserError(f"sam_model={model} is not possible: choose from {', '.join(sam_model_registry)}.")
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        network = sam_model_registry[model]()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise UserError(f"{path} does not hold weights of {model} ({str(error).splitlines()[0]}).") from None
    return SamSegmenter(SamPredictor(network.to(device).eval()))
