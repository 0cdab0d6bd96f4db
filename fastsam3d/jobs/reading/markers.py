"""Chooses what makes masks of boxes and points: the network that ships, or Segment Anything where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError

if TYPE_CHECKING:
    from fastsam3d.marking.learned import Marker

LEARNED, SAM = "learned", "sam"
MARKERS = (LEARNED, SAM)


@dataclass(frozen=True)
class MarkerChoice:
    """The marker of a request.

    Attributes:
        name: one of `MARKERS`.
        sam_checkpoint: file with the weights of Segment Anything; None with another marker.
        sam_model: its size: vit_b, vit_l or vit_h.
    """

    name: str = LEARNED
    sam_checkpoint: str | None = None
    sam_model: str = "vit_b"

    def settings(self) -> dict[str, Any]:
        """Returns the choice as keys of the configuration."""
        return {"marker": self.name, "sam_checkpoint": self.sam_checkpoint, "sam_model": self.sam_model}

    def load(self, device: str) -> Marker:
        """Loads the marker.

        Args:
            device: of Segment Anything; `auto` for a card where there is one.

        Raises:
            UserError: the package or the weights of Segment Anything are missing, or do not fit each other; or there is
                no such device.
        """
        from fastsam3d.marking.learned import Marker, shipped_marker  # with PyTorch: only where something is marked

        if self.name == LEARNED:
            return shipped_marker()
        from fastsam3d.marking.sam import load_sam
        from fastsam3d.sam3d.checkpoints.loading import check_device

        assert self.sam_checkpoint is not None
        return Marker(load_sam(self.sam_checkpoint, self.sam_model, str(check_device(device))))


def marker_of(values: Mapping[str, Any]) -> MarkerChoice:
    """Reads the keys `marker`, `sam_checkpoint` and `sam_model` of a configuration.

    Weights of Segment Anything choose it; they need no further key.

    Raises:
        UserError: a value is empty, an unknown marker, or weights are missing or belong to another marker.
    """
    given = {key: values[key] for key in MarkerChoice().settings()}
    for key, value in given.items():
        if value is not None and not str(value).strip():  # for instance from a shell variable that is not set
            raise UserError(f"{key} is empty. Give a value, or leave it out.")
    name, weights, model = (None if value is None else str(value) for value in given.values())
    if name is None:
        name = LEARNED if weights is None else SAM
    if name not in MARKERS:
        raise UserError(f"marker={name} is not possible. {suggestion(name, MARKERS)}")
    if name == SAM and weights is None:
        raise UserError(
            "marker=sam needs the weights of Segment Anything as its authors publish them: sam_checkpoint=FILE.pth. "
            "It also needs the package segment_anything."
        )
    if name == LEARNED and weights is not None:
        raise UserError("marker=learned does not use sam_checkpoint. Give marker=sam, or leave out sam_checkpoint.")
    return MarkerChoice(name, weights, model or "vit_b")
