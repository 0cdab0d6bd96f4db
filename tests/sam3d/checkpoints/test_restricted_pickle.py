"""Hostile checkpoints: whatever they name, nothing of it runs and nothing of PyTorch changes."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints.folder import read_state

RUN: list[str] = []


def run(text: str) -> None:
    RUN.append(text)


class Calls:
    """Calls a function when it is unpickled the ordinary way."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    "extra",
    [
        Calls(exec, "raise SystemExit('code of a checkpoint was run')"),
        Calls(run, "called"),
        Calls(getattr, "text", "upper"),
        Calls(__import__, "antigravity"),
        [Calls(run, "nested"), {"deep": Calls(run, "deep")}],
    ],
)
def test_objects_beside_the_weights_stay_inert(tmp_path: Path, extra: object) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "extra": extra}, tmp_path / "x.ckpt")
    RUN.clear()
    state = read_state(tmp_path / "x.ckpt")
    assert {name: value.tolist() for name, value in state.items()} == {"a": [1.0, 1.0]}
    assert RUN == []


def test_objects_among_the_weights_are_no_weights(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": Calls(run, "x"), "c": 3}, tmp_path / "x.ckpt")
    assert list(read_state(tmp_path / "x.ckpt")) == ["a"]


def handmade(path: Path, program: bytes) -> Path:
    """A checkpoint archive with a pickle program of one's own."""
    torch.save({"a": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, program if name.endswith("data.pkl") else data)
    return path


@pytest.mark.parametrize("name", ["_rebuild_tensor_v2", "_rebuild_parameter"])
@pytest.mark.parametrize("slots", [False, True])
def test_functions_cannot_be_changed(tmp_path: Path, name: str, slots: bool) -> None:
    """BUILD on a function: the ordinary unpickler would set `__defaults__` of PyTorch's own."""
    function = getattr(torch._utils, name)
    before = dict(vars(function)), function.__defaults__
    state = pickle.dumps({"__defaults__": (1, 2, 3)}, protocol=2)[2:-1]
    state = b"N" + state + b"\x86" if slots else state
    program = b"\x80\x02ctorch._utils\n" + name.encode() + b"\n" + state + b"b0}."
    assert read_state(handmade(tmp_path / "x.ckpt", program)) == {}
    assert (dict(vars(function)), function.__defaults__) == before


@pytest.mark.parametrize(
    "name",
    ["torch\nload", "torch\nUntypedStorage", "torch.storage\nTypedStorage", "torch.jit\nload", "os\nsystem",
     "builtins\neval", "torch._utils\n_rebuild_parameter_with_state", "torch\nFloatStorage.__init__"],
)  # fmt: skip
def test_other_names_give_nothing(tmp_path: Path, name: str) -> None:
    """Each is called with a string and stored; nothing happens and no tensor comes of it."""
    program = b"\x80\x02}U\x01ac" + name.encode() + b"\nU\x04exit\x85Rs."
    assert read_state(handmade(tmp_path / "x.ckpt", program)) == {}


def test_a_reference_beyond_the_stored_numbers_is_refused(tmp_path: Path) -> None:
    """A tensor larger than its storage would read other memory."""
    path = tmp_path / "x.ckpt"
    torch.save({"a": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        program = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    # The size (4,) of the tensor, not the 4 of the storage before it.
    position = program.rindex(b"K\x04\x85")
    changed = program[:position] + b"M\xff\xff\x85" + program[position + 3 :]
    with pytest.raises(UserError, match="cannot be read"):
        read_state(handmade(path, changed))


def test_torchscript_archives_are_refused(tmp_path: Path) -> None:
    path = handmade(tmp_path / "x.ckpt", pickle.dumps({}))
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/constants.pkl", b"")
    with pytest.raises(UserError, match="TorchScript archive"):
        read_state(path)


def test_formats_before_pytorch_1_6_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with tarfile.open(tmp_path / "tar.ckpt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    for name in ("old.ckpt", "tar.ckpt"):
        with pytest.raises(UserError, match=r"not an archive of PyTorch 1\.6"):
            read_state(tmp_path / name)


def test_parameters_and_shared_storage_are_read(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    torch.save({"a": base[2:4], "b": torch.nn.Parameter(base.view(2, 3)), "h": base.half()}, tmp_path / "x.ckpt")
    state = read_state(tmp_path / "x.ckpt")
    assert state["a"].tolist() == [2.0, 3.0]
    assert state["b"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert state["h"].dtype == torch.float16
