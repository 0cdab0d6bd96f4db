"""Reads a checkpoint of Chat-Scene: the weights that were trained on top of Vicuna."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fastsam3d.basics.reading.torch_archives import read_archive
from fastsam3d.errors import UserError
from fastsam3d.mllm.chat_scene.features import WIDEST
from fastsam3d.mllm.chat_scene.tokens import MOST_OBJECTS

WHAT = "the checkpoint of Chat-Scene"
SETTINGS_CLASSES = ("utils.easydict.EasyDict", "easydict.EasyDict")
"""Classes of the entry `config` in published checkpoints. It is read as a plain dictionary, and not used."""
WRAPPED = "llama_model.base_model.model."
"""Prefix of the names of the language model, which PEFT had wrapped."""
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ADAPTED = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
"""Matrices of a layer that LoRA changes."""
PROJECTIONS = ("object_proj", "object_img_proj")
"""Projections of the 3D and the 2D features: two linear layers each."""
UNUSED = re.compile(r"pos_proj\.|pos_embedding\.|.*\.rotary_emb\.inv_freq$")
"""Keys of modules that do not take part in answers. They are ignored."""
LISTED = 40
"""Most entries in a list of keys in a message. One entry stands for a key in all layers."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        adapters: by name of the changed matrix, the matrices A (r, in) and B (out, r) of LoRA.
        embeddings, head: (tokens, hidden). The tokens are the vocabulary, then the names of objects.
        projections: weights and biases of `PROJECTIONS` by name.
    """

    adapters: Mapping[str, tuple[Tensor, Tensor]]
    embeddings: Tensor
    head: Tensor
    projections: Mapping[str, Tensor]


def read_checkpoint(
    path: str | Path, shapes: Mapping[str, Sequence[int]], settings_classes: Sequence[str] = ()
) -> Checkpoint:
    """Reads a checkpoint for a language model.

    Args:
        path: a file of `torch.save` with the entry `model`.
        shapes: shape of every parameter of the language model, by name.
        settings_classes: classes beside `SETTINGS_CLASSES` that the file may name, as "module.Class".

    Raises:
        UserError: the file cannot be read, or keys are missing, left over or of another shape. The message lists them.
    """
    values = read_archive(path, WHAT, (*SETTINGS_CLASSES, *settings_classes))
    state = values.get("model") if isinstance(values, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{WHAT} {path} has no entry `model` with tensors by name. Give another file.")
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    wanted = _wanted(tensors, shapes)
    problems = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in state if name not in wanted and not UNUSED.match(name)],
        "of a wrong shape": [
            f"{name} {_shape(tensors[name].shape)}, not {_shape(shape)}"
            for name, shape in wanted.items()
            if name in tensors and not _fits(tensors[name].shape, shape)
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {kind}: {grouped(names)}" for kind, names in problems.items() if names)
        raise UserError(f"{WHAT} {path} does not fit this language model. {listed}. Check that both belong together.")
    return Checkpoint(
        {
            name.removesuffix(".weight"): (tensors[_adapter(name, "A")], tensors[_adapter(name, "B")])
            for name in _adapted(shapes)
        },
        tensors[WRAPPED + EMBEDDINGS],
        tensors[WRAPPED + HEAD],
        {name: value for name, value in tensors.items() if name.startswith(tuple(f"{p}." for p in PROJECTIONS))},
    )


def _adapted(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    return [name for name in shapes if name.endswith(tuple(f".{part}.weight" for part in ADAPTED))]


def _adapter(name: str, which: str) -> str:
    return f"{WRAPPED}{name.removesuffix('.weight')}.lora_{which}.default.weight"


def _wanted(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int | None, ...]]:
    """Shapes of all keys that have to be there. None: any size."""
    wanted: dict[str, tuple[int | None, ...]] = {}

    def size(name: str, axis: int, most: int) -> int | None:
        """A size that the file decides, within a bound: beyond it, the shape is named as wrong."""
        tensor = tensors.get(name)
        return None if tensor is None or tensor.dim() != 2 else min(max(tensor.shape[axis], 1), most)

    for name in _adapted(shapes):
        rows, columns = shapes[name]
        rank = size(_adapter(name, "A"), 0, min(rows, columns))
        wanted[_adapter(name, "A")], wanted[_adapter(name, "B")] = (rank, columns), (rows, rank)
    vocabulary, hidden = shapes[EMBEDDINGS]
    tokens = size(WRAPPED + EMBEDDINGS, 0, vocabulary + MOST_OBJECTS)
    wanted |= {WRAPPED + EMBEDDINGS: (tokens, hidden), WRAPPED + HEAD: (tokens, hidden)}
    for name in PROJECTIONS:
        width = size(f"{name}.0.weight", 1, WIDEST)
        wanted |= {
            f"{name}.0.weight": (hidden, width),
            f"{name}.0.bias": (hidden,),
            f"{name}.2.weight": (hidden, hidden),
            f"{name}.2.bias": (hidden,),
        }
    return wanted


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(b in (None, a) for a, b in zip(shape, wanted, strict=True))


def _shape(shape: Iterable[int | None]) -> str:
    return "x".join("any" if size is None else str(size) for size in shape)


def grouped(names: Sequence[str]) -> str:
    """Lists names in a text. Names that differ only in the number of their layer are one entry of at most `LISTED`."""
    layers: dict[str, list[str]] = defaultdict(list)
    for name in names:
        match = re.search(r"(?<=\.layers\.)\d+(?=\.)", name)
        key = name if match is None else f"{name[: match.start()]}*{name[match.end() :]}"
        layers[key] += [] if match is None else [match[0]]
    listed = [key if not numbers else f"{key} (* = {_ranges(numbers)})" for key, numbers in layers.items()]
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(name[:300] for name in listed[:LISTED]) + more


def _ranges(numbers: Sequence[str]) -> str:
    """ "0-3, 7" of 0, 1, 2, 3 and 7."""
    ordered = sorted({int(number) for number in numbers})
    runs: list[list[int]] = []
    for number in ordered:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
