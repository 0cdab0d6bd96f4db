"""Stores attention maps on disk, by the number of their prompt, with facts about where they come from.

Logits of a predictor and shares of attention look alike, but must not be confused: a softmax over small shares makes
all of them nearly equal. So a file says which of the two it holds, for which rows of the prompts, and for which model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastsam3d.basics.files import write_atomically
from fastsam3d.basics.paths import require_file, user_path
from fastsam3d.errors import UserError
from fastsam3d.mllm.budgets import LOGITS, MASS, shares_of_mass
from fastsam3d.mllm.predictor.network import MODEL_ATTRIBUTE
from fastsam3d.mllm.predictor.question_sets import QuestionSet, sets_from

VERSION = 1
_ENTRY = "fastsam3d.attention_maps"
_LARGEST_FILE = 1 << 33
_SAMPLED = 64
"""Most numbers of each parameter that `model_identity` reads."""


@dataclass
class StoredMaps:
    """Maps of one language model.

    Attributes:
        kind: `LOGITS`: their softmax gives the shares of attention. `MASS`: they are these shares times any factor.
        rows: name of the prompt rows whose attention the maps hold, for instance "last" or "text".
        model: `model_identity` of the language model.
        maps: (objects,) float32 by the number of the prompt, for instance its place in the list of annotations.
        sets: question sets of the prompts, in the order of their numbers; empty where they are not known.
        present: (objects,) bool by the number of the prompt, False for padding objects. Prompts without padding objects
            are left out.

    Raises:
        UserError: there is no such kind, or a map has numbers that the kind cannot hold.
    """

    kind: str
    rows: str
    model: str
    maps: dict[int, Tensor] = field(default_factory=dict)
    sets: tuple[QuestionSet, ...] = ()
    present: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in (LOGITS, MASS):
            raise UserError(f"maps are of the kind {self.kind!r}: say {LOGITS} or {MASS}")
        (given, there), self.maps, self.present = (self.maps, self.present), {}, {}
        for index, values in given.items():
            self.add(index, values, there.get(index))

    def add(self, index: int, values: Tensor, present: Tensor | None = None) -> None:
        """Adds the map of one prompt.

        Args:
            index: number of the prompt.
            values: (objects,).
            present: (objects,) bool, False for padding objects. None: there are no padding objects.

        Raises:
            UserError: the prompt already has a different map, or the numbers are not possible for the kind.
        """
        values = torch.as_tensor(values).detach().to("cpu", torch.float32).flatten().clone()
        if not len(values) or not bool(values.isfinite().all()):
            raise UserError(f"the map of prompt {index} is empty or has numbers that are not finite: make it again")
        if self.kind == MASS and bool((values < 0).any()):
            raise UserError(f"the map of prompt {index} has negative shares of attention: logits need kind={LOGITS}")
        known = self.maps.get(int(index))
        if known is not None and not torch.equal(known, values):
            raise UserError(f"prompt {index} has two different maps: make both files again from the same model")
        if present is not None and (present.shape != values.shape or not bool(present.any())):
            raise UserError(
                f"prompt {index} has {len(values)} numbers, and present has {present.numel()} values of which "
                f"{int(present.sum())} are true: give one of each for every object, and at least one object"
            )
        self.maps[int(index)] = values
        if present is not None and not bool(present.all()):
            self.present[int(index)] = present.detach().to("cpu", torch.bool).clone()

    def there(self, index: int) -> Tensor:
        """Which objects of a prompt are no padding objects, (objects,) bool."""
        return self.present.get(index, torch.ones(len(self.maps[index]), dtype=torch.bool))

    def merge(self, other: StoredMaps) -> None:
        """Adds the maps of other prompts of the same question sets. A prompt may be in both, with equal maps.

        Raises:
            UserError: the others have another kind, other rows, another model or other sets, or a prompt has two
                different maps.
        """
        for name in ("kind", "rows", "model", "sets"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise UserError(
                    f"maps with the {name} {mine!r} and {theirs!r} do not belong together: merge equal ones"
                )
        for index, values in other.maps.items():
            self.add(index, values, other.present.get(index))

    def require(self, indices: Iterable[int]) -> None:
        """Checks that there is a map for every prompt.

        Raises:
            UserError: some are missing.
        """
        missing = [index for index in indices if index not in self.maps]
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise UserError(f"{len(missing)} prompts have no map ({shown}): make the maps of all prompts first")

    def objects(self, indices: Iterable[int]) -> list[Tensor]:
        """Scores of some prompts, in the form that the technique `external` reads. Set its `scale` to `kind`.

        Raises:
            UserError: a map is missing.
        """
        indices = list(indices)
        self.require(indices)
        return [self.maps[index] for index in indices]

    def shares(self, index: int) -> Tensor:
        """Shares of attention of the objects of one prompt, (objects,) float32, for both kinds; they sum to 1.

        Raises:
            UserError: the map is missing.
        """
        (values,) = self.objects([index])
        return shares_of_mass(values[None], self.there(index)[None], self.kind)[0].float()

    def logits(self, index: int) -> Tensor:
        """Logits of the objects of one prompt, (objects,) float32.

        Raises:
            UserError: the maps are shares of attention, for which a softmax is wrong; or the map is missing.
        """
        if self.kind != LOGITS:
            raise UserError(
                "these maps are shares of attention, and a softmax would make all of them nearly equal: take shares()"
            )
        return self.objects([index])[0]


def save_maps(maps: StoredMaps, path: str | Path) -> Path:
    """Writes maps to a file that `load_maps` reads, and returns its path.

    Raises:
        UserError: there are none, or the path cannot be written.
    """
    from safetensors.torch import save

    if not maps.maps:
        raise UserError("there are no maps to write: make some first")
    indices = sorted(maps.maps)
    tensors = {
        "indices": torch.tensor(indices, dtype=torch.int64),
        "lengths": torch.tensor([len(maps.maps[index]) for index in indices], dtype=torch.int64),
        "values": torch.cat([maps.maps[index] for index in indices]),
        "present": torch.cat([maps.there(index) for index in indices]),
    }
    entry: dict[str, Any] = {"version": VERSION, "kind": maps.kind, "rows": maps.rows, "model": maps.model}
    entry["sets"] = [asdict(one) for one in maps.sets]
    return write_atomically(user_path(path), save(tensors, {_ENTRY: json.dumps(entry)}))


def load_maps(
    path: str | Path, model: str | None = None, kind: str | None = None, rows: str | None = None
) -> StoredMaps:
    """Reads maps.

    Args:
        path: of the file.
        model, kind, rows: what the maps must have; None: anything.

    Raises:
        UserError: the file is missing or damaged, or holds other maps than `model`, `kind` and `rows` ask for.
    """
    from safetensors import SafetensorError, safe_open

    path = user_path(path)
    require_file(path, f"the file of attention maps {path}", _LARGEST_FILE)
    try:
        with safe_open(str(path), "pt") as file:
            entry = json.loads((file.metadata() or {})[_ENTRY])
            indices, lengths, values = (file.get_tensor(name) for name in ("indices", "lengths", "values"))
            present = file.get_tensor("present") if "present" in file.keys() else None  # noqa: SIM118 - not a mapping
        if entry["version"] != VERSION:
            raise ValueError(f"version {entry['version']}, and known is {VERSION}")
        maps = _split(indices, lengths, values)
        there = {} if present is None else _split(indices, lengths, present.bool())
        loaded = StoredMaps(entry["kind"], entry["rows"], entry["model"], maps, sets_from(entry.get("sets", [])), there)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is no file of attention maps that can be read ({error}): give one that save_maps wrote"
        ) from None
    for name, wanted in {"model": model, "kind": kind, "rows": rows}.items():
        if wanted is not None and getattr(loaded, name) != wanted:
            found = getattr(loaded, name)
            raise UserError(f"{path} holds maps with the {name} {found!r}, and {wanted!r} is needed: make them for it")
    return loaded


def _split(indices: Tensor, lengths: Tensor, values: Tensor) -> dict[int, Tensor]:
    sizes = lengths.tolist()
    if indices.dim() != 1 or indices.shape != lengths.shape or len(set(indices.tolist())) != len(indices):
        raise ValueError("its prompts are not told apart")
    if min(sizes, default=0) < 1 or sum(sizes) != values.numel():
        raise ValueError("its lengths do not add up")
    return dict(zip(indices.tolist(), values.split(sizes), strict=True))


def model_identity(model: Any, without: Sequence[str] = (), dtype: torch.dtype = torch.float32) -> str:
    """Identifies a language model by its class, the shapes of its parameters and a sample of their numbers.

    Args:
        model: a module.
        without: endings of names of parameters that do not count, for instance parameters that are computed while the
            model is loaded, because another machine may round them differently.
        dtype: number type that the numbers are rounded to.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if MODEL_ATTRIBUTE in name.split(".") or name.endswith(tuple(without)):
            continue  # a predictor that the model carries is no part of what makes its maps
        flat = parameter.detach().flatten()
        places = torch.linspace(0, len(flat) - 1, min(_SAMPLED, len(flat)), dtype=torch.float64).long()
        sample = flat[places.to(flat.device)].to(dtype).float().cpu().tolist()
        digest.update(f"{name} {tuple(parameter.shape)} {sample}".encode())
    return f"{type(model).__name__} {digest.hexdigest()[:16]}"
