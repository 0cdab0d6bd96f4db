"""Items of a batch: one picture with one mask, or one picture with all of its masks, and its settings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from fastsam3d.errors import UserError


@dataclass(frozen=True)
class Item:
    """One job of a batch.

    Attributes:
        name: of its folder in the output; no other item has it.
        image: path or address of the picture.
        mask: of the one object; with it the item is a job like `infer`, without it like `scene`.
        masks: of several objects: files, or one folder, label image or array; none: what lies beside the picture.
        beside: files beside the picture that belong to it: its masks and its point map.
        pointmap: path or address; `none`: without; None: none was named.
        seed: of the noise; None: that of the settings.
        columns: other columns of the manifest, which are copied to the index.
        stamp: of the content of its files, as far as they are listed; part of what its result depends on.
    """

    name: str
    image: str
    mask: str | None = None
    masks: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    pointmap: str | None = None
    seed: int | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    stamp: str = ""

    @property
    def scene(self) -> bool:
        """Tells whether all objects of the picture are wanted."""
        return self.mask is None

    @property
    def addresses(self) -> list[str]:
        """Paths and addresses of its files."""
        pointmap = [] if self.pointmap in (None, "none") else [str(self.pointmap)]
        return [self.image, *([self.mask] if self.mask else []), *self.masks, *self.beside, *pointmap]

    def made_of(self, settings: str) -> str:
        """Computes a hash of everything that the result of the item depends on.

        Args:
            settings: hash of the settings of the batch.
        """
        parts = [settings, self.image, self.mask, self.masks, self.beside, self.pointmap, self.seed, self.stamp]
        return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def refuse_doubles(items: list[Item]) -> None:
    """Refuses two items with one name, because they would overwrite each other's files.

    Raises:
        UserError: there are two.
    """
    seen: dict[str, str] = {}
    for item in items:
        key = item.name.casefold()
        if key in seen:
            raise UserError(
                f"two items are called {item.name} ({seen[key]} and {item.image}): their results would share a "
                "folder. Give each a name of its own in the column name."
            )
        seen[key] = item.image
