"""Marking with Segment Anything, where it is installed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.marking.segmentation import Prompt


def load_sam(checkpoint: str | Path, model: str = "vit_b", device: str = "auto") -> SamSegmenter:
    """Makes a segmenter with the weights of a checkpoint file.

    Args:
        checkpoint: as published by its authors, `.pth`.
        model: `vit_b`, `vit_l` or `vit_h`.
        device: device of the network; `auto` is CUDA if there is one, else the CPU.

    Raises:
        UserError: the package or the file is missing, or they do not fit each other.
    """
    path = user_path(checkpoint)
    missing = [] if path.is_file() else [f"there is no file {path} with its weights (sam_checkpoint)"]
    try:
        from segment_anything import SamPredictor, sam_model_registry
    except ImportError:
        missing.append("the package segment_anything is not installed (pip install segment-anything)")
    if missing:
        raise UserError(
            f"Segment Anything cannot mark objects: {', and '.join(missing)}. Without sam_checkpoint, the network of "
            "this package marks them."
        )
    if model not in sam_model_registry:
        raise UserError(f"sam_model={model} is not possible: choose from {', '.join(sam_model_registry)}.")
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        network = sam_model_registry[model]()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} does not hold weights of {model} ({reason}). Give the file of that model.") from None
    return SamSegmenter(SamPredictor(network.to(device).eval()))


class SamSegmenter:
    """Masks from a predictor with the interface of Segment Anything 1 or 2 (`set_image`, `predict`).

    The picture is embedded once, not at every click. Threads take turns, because all of them use one predictor.

    Args:
        predictor: holds the network and the embedded picture.
    """

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor
        self._embedded: np.ndarray | None = None
        self._turn = threading.Lock()

    def __call__(self, image: np.ndarray, prompt: Prompt) -> np.ndarray:
        """Makes the mask of a prompt, bool `[H, W]`; see `segmentation.segment`."""
        if prompt.is_empty:
            return np.zeros(image.shape[:2], dtype=bool)
        with self._turn:
            return self._mask(image, prompt)

    def _mask(self, image: np.ndarray, prompt: Prompt) -> np.ndarray:
        if self._embedded is None or not np.array_equal(self._embedded, image):
            self._embedded = None  # the predictor has no picture if an error ends the next line
            self._predictor.set_image(image)
            self._embedded = image.copy()  # the caller may change its array in place
        points: Sequence[tuple[float, float, bool]] = prompt.clicks
        single = len(points) == 1 and prompt.box is None
        masks, scores, _ = self._predictor.predict(
            point_coords=np.array([(x, y) for x, y, _ in points], dtype=np.float32) if points else None,
            point_labels=np.array([int(inside) for _, _, inside in points]) if points else None,
            box=None if prompt.box is None else np.array(prompt.box, dtype=np.float32),
            # One click may mean a part or the whole; more say which.
            multimask_output=single,
        )
        return np.asarray(masks[int(np.argmax(scores))]) > 0
