"""Reads files of `torch.save` without running any code in them, within limits."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsam3d.basics.paths import require_file, user_path
from fastsam3d.errors import UserError

LARGEST_PICKLE = 1 << 26
"""Largest size, in bytes, of the part that describes the tensors; the official generators have 1 or 2 million."""
DEEPEST_TUPLE = 8
"""Deepest nesting of tuples in tuples. The description of a tensor is three deep."""


def check_archive(path: Path) -> None:
    """Refuses files that `torch.load` would not read by its restricted reader, or that are much larger when unpacked.

    A TorchScript archive goes to `torch.jit.load`; files from before PyTorch 1.6 may be tar archives, which it unpacks.

    Raises:
        ValueError: the file is one of these. Other errors come from reading it.
    """
    import torch

    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise ValueError("not an archive of PyTorch 1.6 or newer")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    # PyTorch does not compress entries. A compressed entry can be a thousand times as large as the file.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("an archive with packed entries, which PyTorch does not write")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("an archive whose entries are larger than the file")
    if any(entry.file_size > LARGEST_PICKLE for entry in entries if entry.filename.endswith("data.pkl")):
        raise ValueError("an archive with too many objects beside its tensors")
    if "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records():
        raise ValueError("a TorchScript archive, which holds code")


def read_archive(path: str | Path, what: str, stand_ins: Sequence[str] = ()) -> Any:
    """Reads a file of `torch.save`, tensors and plain values, by the restricted reader of PyTorch.

    Tensors are mapped into memory: tensors that are not used are never read.

    Args:
        what: name of the file in messages, without its path.
        stand_ins: names of classes, with their modules. An ordered dictionary replaces each object of these classes.
            Their code is not imported or run.

    Raises:
        UserError: the file does not exist, cannot be read, or holds an object of another class. The message names the
            class.
    """
    import torch

    file = require_file(user_path(path), f"{what} {path}")
    try:
        check_archive(file)
        _check_tuples(file)
        with _standing_in(stand_ins):
            strange = _strange_classes(file)
            value = None if strange else torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except UserError:
        raise
    except Exception as error:  # PyTorch's reader raises many kinds on a damaged file
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{what} {path} cannot be read ({text}). Download or copy it again.") from error
    if strange:
        raise UserError(
            f"{what} {path} holds an object of the class {strange[0][:100]}, which is neither a tensor nor a plain "
            "value and is not made here: save the file without it, or check where it comes from."
        )
    return value


def _check_tuples(file: Path) -> None:
    """Refuses tuples in tuples beyond what tensors need.

    If each tuple holds the last one twice, the file is small, but hashing such a tuple as a key takes almost forever.
    The depths are computed from the operations of the pickle, and no object is built.

    Raises:
        ValueError: they are nested too deeply, or an operation finds too few values on the stack.
    """
    with zipfile.ZipFile(file) as archive:
        pickles = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    for data in pickles:
        depths: list[int | None] = []  # of the values on the stack; None is a mark
        kept: dict[Any, int | None] = {}
        for operation, argument, _ in pickletools.genops(data):
            name = operation.name
            if name in ("BINPUT", "LONG_BINPUT"):
                kept[argument] = depths[-1]
                continue
            taken = _taken(depths, [part.name for part in operation.stack_before])
            if name in ("BINGET", "LONG_BINGET"):
                depths.append(kept[argument])
            elif name == "MARK":
                depths.append(None)
            elif operation.stack_after:
                depths.append(1 + max(taken, default=0) if name.startswith("TUPLE") else 0)
            if depths and (depths[-1] or 0) > DEEPEST_TUPLE:
                raise ValueError(f"tuples are nested more than {DEEPEST_TUPLE} deep")


def _taken(depths: list[int | None], needed: list[str]) -> list[int]:
    """Takes the values that an operation needs from the stack: single values, or all values down to a mark."""
    taken: list[int] = []
    for part in reversed(needed):
        while part == "stackslice" and depths and depths[-1] is not None:
            taken.append(depths.pop() or 0)
        if part != "stackslice":
            if not depths:
                raise ValueError("an operation finds nothing on the stack")
            taken.append(depths.pop() or 0)
    return taken


def _strange_classes(file: Path) -> list[str]:
    """Returns the names in a file that the restricted reader does not know."""
    import torch

    # PyTorch before 2.6 cannot list them. Its restricted reader refuses them, too, by their names.
    list_names = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    return [] if list_names is None else sorted(list_names(str(file)))


def _standing_in(names: Sequence[str]) -> Any:
    """Returns a `with` block in which objects of these classes are read as ordered dictionaries."""
    import contextlib
    from collections import OrderedDict

    import torch

    if not names:
        return contextlib.nullcontext()
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise UserError("reading this kind of checkpoint needs PyTorch 2.6 or newer: pip install -U torch")
    return torch.serialization.safe_globals([(OrderedDict, name) for name in names])
