"""Small checkpoints and settings that ask for much: refused in a line, quickly and within little memory."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from bounded_reading import assert_refused

from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints.folder import locate, read_state
from fastsam3d.sam3d.checkpoints.official_settings import read_folder

READER = "fastsam3d.sam3d.checkpoints.folder.read_state"
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and limits of memory")
NESTED = b")" + b"2\x86" * 60
"""A pickle of a tuple that holds the same tuple twice, sixty deep: hashing or printing it takes for ever."""
HEAD = b"\x80\x02"

PICKLES = {
    "key.ckpt": (HEAD + b"}(" + NESTED + b"K\1u.", "nested tuples"),
    "one_key.ckpt": (HEAD + b"}" + NESTED + b"K\1s.", "nested tuples"),
    "dict.ckpt": (HEAD + b"(" + NESTED + b"K\1d.", "nested tuples"),
    "ordered.ckpt": (HEAD + b"ccollections\nOrderedDict\n(]" + NESTED + b"K\1\x86atR.", "nested tuples"),
    "frozen.ckpt": (b"\x80\x04(" + NESTED + b"\x91.", "no use for"),
    "set.ckpt": (b"\x80\x04\x8f(" + NESTED + b"\x90.", "no use for"),
    "storage.ckpt": (HEAD + NESTED + b"Q.", "nested values"),
    "memo.ckpt": (HEAD + b"}r" + struct.pack("<I", 2**31 - 1) + b"K\1.", "no state dict"),
    "bytearray.ckpt": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "no use for"),
}


def archive(path: Path, program: bytes, compression: int = zipfile.ZIP_STORED, extra: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", program)
        file.writestr("archive/version", "3\n")
        if extra:
            file.writestr("archive/data/0", bytes(extra))
    return path


def packed(path: Path, text: str, values: int = 48, scales: int = 1) -> Path:
    """A packed file whose metadata say `text` of a tensor."""
    header = {
        "__metadata__": {"format": "fastsam3d-packed-1", "a": text},
        "a.packed": {"dtype": "U8", "shape": [values], "data_offsets": [0, values]},
        "a.scale": {"dtype": "F16", "shape": [scales], "data_offsets": [values, values + 2 * scales]},
    }
    data = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data + bytes(values + 2 * scales))
    return path


@linux
def test_hostile_checkpoints_are_refused_in_time_and_within_memory(tmp_path: Path) -> None:
    files = {name: (archive(tmp_path / name, program), words) for name, (program, words) in PICKLES.items()}
    plain = pickle.dumps({}, 2)
    files["deflated.pt"] = (archive(tmp_path / "deflated.pt", plain, zipfile.ZIP_DEFLATED, 10**8), "packed entries")
    for name, text in {
        "bits.safetensors": "1000000000,64,1,64",
        "bits_negative.safetensors": "-6,64,1,64",
        "group.safetensors": "6,1000000000,1,64",
        "group_zero.safetensors": "6,0,1,64",
        "shape.safetensors": "6,64,1000000000,1000000000",
        "shape_zero.safetensors": "6,64,0,64",
        "no_shape.safetensors": "6,64",
        "text.safetensors": "six",
        "long.safetensors": "9" * 5000,
    }.items():
        files[name] = (packed(tmp_path / name, text), "a is damaged")
    (tmp_path / "zero.ckpt").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.safetensors")
    files["zero.ckpt"] = (tmp_path / "zero.ckpt", "pipe or a device")
    files["pipe.safetensors"] = (tmp_path / "pipe.safetensors", "pipe or a device")
    assert_refused(READER, files)


def test_good_packed_files_and_checkpoints_are_read(tmp_path: Path) -> None:
    state = read_state(packed(tmp_path / "a.safetensors", "6,64,1,64"))
    assert state["a"].shape == (1, 64)
    torch.save({"state_dict": {"a": torch.arange(3)}, ("flat", 1): 2, "epoch": 3}, tmp_path / "a.ckpt")
    assert read_state(tmp_path / "a.ckpt")["a"].tolist() == [0, 1, 2]


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


@pytest.mark.parametrize(
    "text",
    [
        "ss_generator_ckpt_path: .",
        "ss_generator_ckpt_path: ''",
        "ss_generator_ckpt_path: ./",
        "ss_generator_ckpt_path: " + "a" * 400,
        'ss_generator_ckpt_path: "a\\0b"',
        "ss_generator_ckpt_path: [a]",
        "ss_generator_ckpt_path: ../a",
        LAUGHS + "slat_mean: *a8",
        MERGED,
        "a: &a [*a]",
        "[" * 5000,
        "a: " + "[" * 60 + "]" * 60,
        "a: !!python/object/apply:os.system [true]",
        "- 1",
        "a: 2026-99-99",
        "\0",
    ],
)
def test_strange_settings_are_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "pipeline.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_the_home_of_nobody_is_a_sentence() -> None:
    with pytest.raises(UserError, match="unknown user"):
        locate("~nobody_of_that_name/weights")
