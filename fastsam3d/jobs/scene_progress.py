"""Keeps the finished objects of an interrupted scene on disk, so that `--resume` can go on with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import Mask
from fastsam3d.jobs.output_folder import json_text
from fastsam3d.jobs.writing.identity import content_hash, plain_hash

if TYPE_CHECKING:
    from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction

FOLDER = ".scene"
CONDITIONS, SUFFIX = "conditions.json", ".safetensors"
WHAT = {
    "image": "the picture",
    "pointmap": "the point map",
    "version": "the version of fastsam3d",
    "weights": "a file of the weights",
}


class MadeOtherwise(UserError):
    """Objects of an interrupted run were made with other settings, other weights or another picture."""


class SceneProgress:
    """Finished objects of a scene in a hidden folder of its output folder.

    Each has a hash of all its inputs. An object with another hash is not used.

    Args:
        output: the output folder, which need not exist.
        conditions: values that the results depend on, see `conditions_of`.
        masks: hashes of the masks by object name.
    """

    def __init__(self, output: str | Path, conditions: Mapping[str, Any], masks: Mapping[str, str]) -> None:
        self.folder = user_path(output) / FOLDER
        self.conditions, self.masks = dict(conditions), dict(masks)
        self.kept = 0
        self.outdated: list[str] = []

    def load(self) -> dict[str, Reconstruction]:
        """Loads the finished objects, by name; none if there are none. `outdated` has those that cannot be used.

        Raises:
            MadeOtherwise: the objects were made with other settings, other weights or another picture.
        """
        from fastsam3d.sam3d.scene.storage import load_reconstruction, made_of

        before = self._conditions_before()
        now = json.loads(json_text(self.conditions))
        for key in sorted({*before, *now}) if before else ():
            if before.get(key) != now.get(key):
                raise MadeOtherwise(
                    f"--resume: {_difference(key, before.get(key), now.get(key))}. Give what was given before, or "
                    "start again without --resume."
                )
        found = {}
        for name in self.masks:
            file = self.folder / f"{name}{SUFFIX}"
            if not file.is_file():
                continue
            try:
                if made_of(file) != self._made_of(name):
                    raise UserError("made of something else")
                found[name] = load_reconstruction(file)
            except UserError:
                self.outdated.append(name)
        self.kept = len(found)
        return found

    def _conditions_before(self) -> dict[str, Any]:
        """Reads the conditions of the interrupted run, to say what differs; empty if they cannot be read."""
        try:
            before = json.loads((self.folder / CONDITIONS).read_text(encoding="utf-8"))["conditions"]
            return before if isinstance(before, dict) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _made_of(self, name: str) -> str:
        return plain_hash({"conditions": self.conditions, "mask": self.masks[name]})

    def begin(self) -> bool:
        """Removes the objects of an earlier scene; returns whether there were any. Other files stay."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return False
        own = [self.folder / CONDITIONS, *self.folder.glob(f"*{SUFFIX}"), *self.folder.glob(".*.tmp")]
        found = any(path.is_file() for path in own)
        with suppress(OSError):
            for path in own:
                path.unlink(missing_ok=True)
            self.folder.rmdir()
        return found

    def keep(self, name: str, result: Reconstruction) -> None:
        """Keeps a finished object.

        Raises:
            UserError: it cannot be written.
        """
        from fastsam3d.basics.files import write_atomically
        from fastsam3d.sam3d.scene.storage import save_reconstruction

        state = {"conditions": self.conditions, "masks": self.masks}
        try:
            write_atomically(self.folder / CONDITIONS, json_text(state).encode("utf-8"))
            save_reconstruction(result, self.folder / f"{name}{SUFFIX}", self._made_of(name))
        except UserError:
            if not self.kept:
                self.begin()  # no object was kept, so the folder goes, too
            raise
        self.kept += 1


def kept_objects(output: Path) -> int:
    """Returns the number of finished objects of an interrupted scene in an output folder."""
    return len(list((output / FOLDER).glob(f"*{SUFFIX}")))


def mask_hashes(names: Sequence[str], masks: Sequence[Mask]) -> dict[str, str]:
    """Returns the hashes of the masks' pixels by object name."""
    return {name: content_hash(mask.pixels) for name, mask in zip(names, masks, strict=True)}


def _difference(key: str, before: Any, now: Any) -> str:
    if key in WHAT:
        return f"{WHAT[key]} has changed"
    if isinstance(before, dict) and isinstance(now, dict):
        inner = next((k for k in {**before, **now} if before.get(k) != now.get(k)), None)
        if inner is not None:
            return _difference(f"{key}.{inner}", before.get(inner), now.get(inner))
    return f"{key} was {json.dumps(before)} and is {json.dumps(now)}"
