"""Thousands of damaged inputs over all readers: each is read or refused in a line, in time and within little memory."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bounded_reading import outcomes
from chat_scene_files import SCENE, write_annotations
from known_shapes import ball
from PIL import Image

from fastsam3d.basics.config_files import config_directory
from fastsam3d.meshes.writing import export_mesh
from fastsam3d.mllm.scenes.files import bundled_room

MUTATIONS = 2000
BATCH = 200
"""Files that one process reads, so that a file which breaks the process is soon found."""
SECONDS = 5.0
NUMBERS = (b"0", b"-1", b"1e999", b"4294967295", b"9999999999999", b"nan", b"\xb2", b"${x}", b"*a", b"{", b"[" * 100)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")]


def seeds(folder: Path) -> dict[str, tuple[str, list[Path]]]:
    """Good files by kind, with the function that reads them."""
    folder.mkdir()
    mesh = ball(1)
    models = [export_mesh(mesh, folder / f"thing{suffix}") for suffix in (".glb", ".obj", ".stl")]
    points = folder / "points.ply"
    rows = np.random.default_rng(0).random((20, 6)).astype("<f4")
    fields = "".join(f"property float {name}\n" for name in ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2"))
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex 20\n{fields}end_header\n"
    points.write_bytes(head.encode() + rows.tobytes())
    text = folder / "text.ply"
    text.write_bytes(head.replace("binary_little_endian", "ascii").encode() + " ".join(map(str, rows.ravel())).encode())
    pictures = []
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (24, 24, 3), dtype=np.uint8))
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        pictures.append(folder / f"picture{suffix}")
        noise.save(pictures[-1])
    np.save(folder / "array.npy", np.ones((24, 24), np.float32))
    torch.save({"state_dict": {"a": torch.ones(3, 2), "b": torch.arange(4)}}, folder / "weights.ckpt")
    header = {
        "__metadata__": {"format": "fastsam3d-packed-1", "a": "6,64,1,64"},
        "a.packed": {"dtype": "U8", "shape": [48], "data_offsets": [0, 48]},
        "a.scale": {"dtype": "F16", "shape": [1], "data_offsets": [48, 50]},
    }
    data = json.dumps(header).encode()
    (folder / "packed.safetensors").write_bytes(struct.pack("<Q", len(data)) + data + bytes(50))
    shutil.copy(config_directory() / "acceleration" / "balanced.yaml", folder / "preset.yaml")
    shutil.copy(bundled_room(), folder / "room.json")
    annotations = write_annotations(folder / "annotations")
    torch.save({f"{SCENE}_{number:02d}": torch.ones(5) for number in range(3)}, folder / "features.pt")
    return {
        "models": ("fastsam3d.meshes.reading.read_model", [*models, points, text]),
        "pictures": ("fastsam3d.jobs.pictures.read_picture", pictures),
        "arrays": ("fuzzed_readers.read_array", [folder / "array.npy"]),
        "weights": (
            "fastsam3d.sam3d.checkpoints.folder.read_state",
            [folder / "weights.ckpt", folder / "packed.safetensors"],
        ),
        "rooms": ("fastsam3d.mllm.scenes.files.read_room", [folder / "room.json"]),
        "attributes": (
            "fastsam3d.mllm.benchmarks.scene_objects.read_attributes",
            [annotations / "scannet_val_attributes.pt"],
        ),
        "features": ("fuzzed_readers.read_vectors", [folder / "features.pt"]),
        "questions": ("fuzzed_readers.read_questions", [annotations / "scan2cap_mask3d_val.json"]),
        "corpora": ("fastsam3d.mllm.benchmarks.references.read_corpus", [annotations / "scan2cap_val_corpus.json"]),
        "presets": ("fastsam3d.acceleration.presets.load_preset", [folder / "preset.yaml"]),
    }


def mutated(data: bytes, generator: np.random.Generator) -> bytes:
    """Some bytes changed, left out, doubled, or replaced by a number or sign that is meant to hurt."""
    changed = bytearray(data)
    for _ in range(int(generator.integers(1, 6))):
        # The beginning holds the headers, where a change does most.
        place = int(generator.integers(0, max(len(changed), 1)) * generator.random() ** 2)
        length = int(generator.integers(1, 9))
        kind = int(generator.integers(0, 5))
        if kind == 0:
            changed[place : place + length] = generator.bytes(length)
        elif kind == 1:
            del changed[place : place + length * 8]
        elif kind == 2:
            changed[place:place] = changed[place : place + length * 16]
        elif kind == 3:
            changed[place : place + length] = NUMBERS[int(generator.integers(len(NUMBERS)))]
        else:
            changed[place : place + 4] = b"\xff" * 4
    return bytes(changed)


def test_damaged_inputs_are_read_or_refused_in_a_line(tmp_path: Path) -> None:
    kinds = seeds(tmp_path / "seeds")
    generator = np.random.default_rng(2026)
    good = [(reader, path) for reader, paths in kinds.values() for path in paths]
    by_reader: dict[str, list[Path]] = {}
    for number in range(MUTATIONS):
        reader, path = good[number % len(good)]
        folder = tmp_path / "files" / str(number // BATCH)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{number}{path.suffix}"
        file.write_bytes(mutated(path.read_bytes(), generator))
        by_reader.setdefault(reader, []).append(file)
    wrong, counted = [], 0
    for reader, files in by_reader.items():
        for start in range(0, len(files), BATCH):
            found = outcomes(reader, files[start : start + BATCH], timeout=600)
            counted += len(found)
            wrong += [
                (name, outcome)
                for name, outcome in found.items()
                if outcome.kind not in ("read", "UserError") or outcome.seconds > SECONDS or "\n" in outcome.text
            ]
    assert counted == MUTATIONS
    assert not wrong, wrong[:10]
