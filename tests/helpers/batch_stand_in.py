"""Work of a batch that takes a moment: a small file an item; some items fail, and some kill their worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.places import is_remote, place_of
from fastsam3d.cluster.work.fetching import Fetched
from fastsam3d.errors import UserError


@dataclass(frozen=True)
class StandIn:
    """Writes `NAME/out.txt` after some seconds: the name, the seed, and the bytes of a picture at an address.

    An item whose column `does` is `fail` raises a `UserError`, `break` another exception, and `kill` kills its process.
    """

    output: str
    seconds: float = 0.0
    settings: str = "settings"
    files: bool = True
    loads: bool = True

    @contextmanager
    def opened(self) -> Iterator[StandIn]:
        yield self

    def load(self) -> None:
        if not self.loads:
            raise UserError("there are no weights.")

    def finished(self, item: Item) -> dict[str, Any] | None:
        size = place_of(self.output).size(f"{item.name}/out.txt") if self.files else None
        return None if size is None else self._facts(size)

    def run(self, fetched: Fetched) -> dict[str, Any]:
        item = fetched.item
        time.sleep(self.seconds)
        does = item.columns.get("does")
        if does == "fail":
            raise UserError("the mask is empty.")
        if does == "break":
            raise ValueError("a defect")
        if does == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        text = f"{item.name} {item.seed}\n".encode() + fetched.files.get(item.image, b"")
        if self.files:
            if not is_remote(self.output):  # a store of objects cannot append
                with (Path(self.output) / "written.log").open("a") as log:
                    log.write(f"{item.name}\n")
            place_of(self.output).write(f"{item.name}/out.txt", text)
        return self._facts(len(text))

    def _facts(self, size: int) -> dict[str, Any]:
        files = {"out.txt": size} if self.files else {}
        return {
            "error": None,
            "objects": 1,
            "failed_objects": 0,
            "seconds": self.seconds,
            "stage_seconds": {"sparse_structure": self.seconds},
            "evaluations": 2,
            "faces": 10,
            "mask_iou": 0.5,
            "bytes": size,
            "files": files,
        }


def stand_in_items(count: int, folder: str = "/nowhere", **does: str) -> list[Item]:
    """Items `item_00000`, ... with pictures `0.png`, ... of a folder; `item_3="fail"` gives one something to do."""
    special = {int(key.removeprefix("item_")): value for key, value in does.items()}
    return [
        Item(f"item_{n:05d}", f"{folder}/{n}.png", seed=n, columns={"does": special.get(n, "work")})
        for n in range(count)
    ]
