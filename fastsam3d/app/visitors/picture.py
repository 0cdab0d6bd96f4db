"""Keeps the picture of one visitor with its marks; contains no web code."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastsam3d.app.marking.painting import PaintedMarking
from fastsam3d.app.server.upload_store import Intake
from fastsam3d.app.server.uploads import read_upload, read_uploaded_mask
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.basics.pixels import inside_of
from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import Mask, all_masks, doubts
from fastsam3d.jobs.pictures import Picture, example_directory, picture_in
from fastsam3d.jobs.pointmaps import read_pointmap

EXAMPLES = {"chair": "Chair", "car": "Pick-up", "toys": "Four toys"}
"""Bundled examples with their names on the page."""
NOTHING_FOUND = "Nothing was found there. Draw a box around the whole object, click on another part, or paint it."
RESERVED = ("over_photo", "image")
"""Names of other files of a result."""


class MarkedPicture:
    """The picture that a visitor has opened, and what is marked in it. Methods may be called from several threads.

    Args:
        studio: the objects that all visitors share.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.picture: Picture | None = None
        self.pointmap: np.ndarray | None = None
        self.marking: PaintedMarking | None = None
        self.has_masks = False
        self._lock = threading.RLock()

    def open_example(self, name: Any) -> None:
        """Opens a bundled picture with its point map, unmarked.

        Raises:
            UserError: the example does not exist.
        """
        if not isinstance(name, str) or name not in EXAMPLES:
            raise UserError("There is no such example.")
        picture = picture_in(example_directory(name))
        pointmap, _, _ = read_pointmap("auto", picture)
        self._open(picture, pointmap, has_masks=True)

    def open_upload(self, path: str | Path) -> str | None:
        """Opens an uploaded picture; a cut-out is marked already. Returns a note if the picture was changed.

        Raises:
            UserError: it cannot be used. Then the earlier picture stays open.
        """
        picture, note = read_upload(path, self.studio.limits)
        self._open(picture, None, has_masks=False)
        if picture.alpha is not None:
            inside = inside_of(picture.alpha)  # as on the command line
            if inside.any():
                assert self.marking is not None
                self.marking.add_mask(inside)
                note = " ".join(filter(None, [note, "Its transparent background was taken as the mask."]))
        return " ".join(filter(None, [note, *map(sentence, picture.doubts)])) or None

    def add_mask(self, path: str | Path) -> str | None:
        """Adds an object from an uploaded mask; returns a note if the mask is doubtful.

        Raises:
            UserError: no picture is open, or the mask cannot be used.
        """
        with self._lock:
            marking = self._marking()
            assert self.picture is not None
            mask = read_uploaded_mask(path, self.picture, self.studio.limits)
            marking.add_mask(mask.pixels)
        return " ".join(map(sentence, doubts(mask))) or None

    def doubts(self) -> list[str]:
        """Returns doubts about the masks, such as a mask of the whole picture, for the page to show before a run."""
        told = []
        with self._lock:
            if self.marking is None:
                return []
            for name, pixels in zip(self.marking.names, self.marking.masks, strict=True):
                for text in doubts(Mask(name, Path(name), pixels)):
                    told.append(sentence(text.replace(f"the mask {name}", f"the mask of {name}")))
        return told

    def mask_file(self) -> tuple[str, bytes]:
        """Returns the name and the bytes of a PNG of the active object's mask, white on black, as large as the picture.

        Raises:
            UserError: the object has no mask yet.
        """
        with self._lock:
            marking = self._marking()
            mask = marking.objects[marking.active].mask
            if mask is None:
                raise UserError("Mark an object first; then its mask can be saved.")
            buffer = io.BytesIO()
            Image.fromarray(mask).convert("L").save(buffer, "PNG")
            return f"{file_name(marking.name(marking.active))}_mask.png", buffer.getvalue()

    def act(self, action: Mapping[str, Any]) -> str | None:
        """Carries out an action of the page; returns a note for the visitor.

        `{"action": "example", "name"}`; `{"action": "picture"}` and `{"action": "mask"}` with the `"token"` of an
        upload; `{"action": "example_masks"}`. All other actions are those of `Marking.apply`.

        Raises:
            UserError: the action is not possible, or no picture is open.
        """
        kind = action.get("action")
        if kind == "example":
            self.open_example(action.get("name"))
        elif kind in ("picture", "mask"):
            path = self.studio.intake.take(action.get("token"))
            try:
                if kind == "picture":
                    return self.open_upload(path)
                return self.add_mask(path)
            finally:
                Intake.discard(path)
        elif kind == "example_masks":
            self._mark_example()
        else:
            with self._lock:
                marking = self._marking()
                marking.apply(action)
                if kind in ("click", "box") and marking.objects[marking.active].mask is None:
                    return NOTHING_FOUND
        return None

    def _mark_example(self) -> None:
        with self._lock:
            marking = self._marking()
            if self.picture is None or not self.has_masks:
                raise UserError("Only the examples come with masks.")
            marking.apply({"action": "clear"})
            for mask in all_masks(self.picture):
                marking.add_mask(mask.pixels)

    def _open(self, picture: Picture, pointmap: np.ndarray | None, has_masks: bool) -> None:
        with self._lock:
            self.has_masks = has_masks
            self.picture, self.pointmap = picture, pointmap
            self.marking = PaintedMarking(picture.pixels, self.studio.segmenter, self.studio.limits.objects)

    def _marking(self) -> PaintedMarking:
        if self.marking is None:
            raise UserError("Choose a picture first.")
        return self.marking


def sentence(text: str) -> str:
    """Returns a message of the library as a sentence that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def file_name(name: str) -> str:
    """Converts the name of an object to a file name: letters, digits, and `_`, `-` and `.` between them."""
    clean = re.sub(r"[^\w.-]+", "_", name).strip("._").lower() or "object"
    return f"{clean}_object" if clean in RESERVED else clean
