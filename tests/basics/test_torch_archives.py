"""Files of `torch.save`: what is read, and what is refused without running it."""

from __future__ import annotations

import os
import sys
import types
import zipfile

import pytest
import torch

from fastsam3d.basics.reading.torch_archives import read_archive
from fastsam3d.errors import UserError


def save_with_class(path, monkeypatch, module="somebody.code"):
    """A file with an object of a class that can be found while it is saved, and not after."""
    settings = type("Settings", (dict,), {"__module__": module, "__qualname__": "Settings"})
    stand_in = types.ModuleType(module)
    stand_in.Settings = settings
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module, stand_in)
        if "." in module:
            patch.setitem(sys.modules, module.partition(".")[0], types.ModuleType(module.partition(".")[0]))
        value = settings(rate=1e-3, inner=settings(name="x"))
        value.__dict__["rate"] = 1e-3
        torch.save({"model": {"a": torch.ones(2)}, "config": value}, path)
    return path


def test_plain_values_and_tensors_are_read(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(3), "b": [1, "x", None]}, path)
    value = read_archive(path, "the file")
    assert value["a"].tolist() == [0, 1, 2] and value["b"] == [1, "x", None]


def test_an_object_of_a_strange_class_is_named_and_a_known_one_replaced(tmp_path, monkeypatch):
    path = save_with_class(tmp_path / "a.pth", monkeypatch)
    with pytest.raises(UserError, match=r"a\.pth holds an object of the class somebody\.code\.Settings"):
        read_archive(path, "the checkpoint")
    value = read_archive(path, "the checkpoint", ("somebody.code.Settings",))
    assert value["config"]["inner"]["name"] == "x" and value["model"]["a"].tolist() == [1, 1]
    assert "somebody.code" not in sys.modules
    with pytest.raises(UserError, match="somebody"):  # the exception holds for one call
        read_archive(path, "the checkpoint")


class Command:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Command()}, "a.pt")
    with pytest.raises(UserError, match="system"):
        read_archive("a.pt", "the file")
    assert not (tmp_path / "pwned").exists()


def test_what_is_no_archive_of_pytorch_is_refused(tmp_path):
    text, packed = tmp_path / "text.pt", tmp_path / "packed.pt"
    text.write_text("no archive")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"0" * 100_000)
    for path, words in [(text, "not an archive"), (packed, "packed entries"), (tmp_path / "none.pt", "does not exist")]:
        with pytest.raises(UserError, match=words):
            read_archive(path, "the file")


def test_keys_that_take_for_ever_to_be_hashed_are_refused(tmp_path):
    path, changed = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"a": 1}, path)
    # An empty tuple, and forty times a tuple of the last one twice (memorised, and taken again), as a key.
    nested = b"\x80\x02})" + b"q\x01h\x01\x86" * 40 + b"K\x01s."
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name, nested if name.endswith("data.pkl") else source.read(name))
    with pytest.raises(UserError, match="nested more than 8 deep"):
        read_archive(changed, "the file")


def test_tensors_and_plain_values_of_all_kinds_pass(tmp_path):
    value = {"a": (1, (2, (3,))), "b": torch.nn.Parameter(torch.ones(2)), "c": [torch.ones(1).half()] * 2, 4: None}
    torch.save(value, tmp_path / "a.pt")
    read = read_archive(tmp_path / "a.pt", "the file")
    assert read["a"] == (1, (2, (3,))) and read["c"][0].dtype == torch.float16 and read[4] is None
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "b.pt")
    assert set(read_archive(tmp_path / "b.pt", "the file")) == {"weight", "bias"}
