"""The viewer: its page as a file, and its reader of GLB files under Node.js."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh

from fastsam3d.app.viewer import page, scripts
from fastsam3d.meshes.compression.compressing import compress_glb

NODE = shutil.which("node")


def test_page_holds_everything_and_fetches_nothing(glb: bytes) -> None:
    text = page(glb, "a <b> {{model}}.glb")
    assert base64.b64encode(glb).decode() in text
    assert "a &lt;b&gt; {{model}}.glb" in text
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert "default-src 'none'" in text
    # A closing tag inside the scripts would end them early.
    assert "</script" not in scripts()


def parts_read(glb: bytes, folder: Path) -> dict[str, dict]:
    """What the viewer's reader finds in a file, by name, run in Node.js."""
    (folder / "scene.glb").write_bytes(glb)
    program = (
        scripts().split("// Draws Gaussians")[0]
        + """
        const data = require("fs").readFileSync(process.argv[2]);
        Fastsam3dGlb.parse(new Uint8Array(data)).then(({ primitives }) => console.log(JSON.stringify(
          primitives.map((p) => ({ name: p.name, matrix: p.matrix, faces: p.indices.length / 3,
            positions: Array.from(p.positions), color: Array.from(p.colors.slice(0, 3)) })))));
    """
    )
    (folder / "read.js").write_text(program)
    words = [NODE, folder / "read.js", folder / "scene.glb"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    return {item["name"]: item for item in json.loads(ran.stdout)}


def places_of(item: dict) -> np.ndarray:
    """Vertices of a part in the frame of the scene."""
    matrix = np.array(item["matrix"]).reshape(4, 4).T
    return np.array(item["positions"]).reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.mark.skipif(NODE is None, reason="needs Node.js, to run the reader outside of a browser")
def test_reader_takes_integers_for_what_they_stand_for(glb: bytes, tmp_path: Path) -> None:
    plain, small = parts_read(glb, tmp_path), parts_read(compress_glb(glb, "quantize"), tmp_path)
    assert set(plain) == set(small) == {"red", "blue"}
    for name, item in small.items():
        # Half of 1/65535 of the longest side, which is 0.8 at most.
        assert np.abs(places_of(item) - places_of(plain[name])).max() < 1e-5
        assert item["color"] == plain[name]["color"] and item["faces"] == plain[name]["faces"]


@pytest.mark.skipif(NODE is None, reason="needs Node.js, to run the reader outside of a browser")
def test_reader_finds_what_trimesh_finds(glb: bytes, tmp_path: Path) -> None:
    read = parts_read(glb, tmp_path)
    loaded = trimesh.load(io.BytesIO(glb), file_type="glb", process=False)
    assert set(read) == {"red", "blue"}
    assert read["red"]["color"] == [1, 0, 0] and read["blue"]["color"] == [0, 0, 1]
    for name, item in read.items():
        matrix, geometry = loaded.graph[name]
        assert np.allclose(np.array(item["matrix"]).reshape(4, 4).T, matrix, atol=1e-6)
        assert np.allclose(np.array(item["positions"]).reshape(-1, 3), loaded.geometry[geometry].vertices, atol=1e-6)
        assert item["faces"] == 12


@pytest.mark.skipif(NODE is None, reason="needs Node.js, to run the reader outside of a browser")
def test_reader_says_what_is_wrong(tmp_path: Path) -> None:
    program = (
        scripts().split("// Draws Gaussians")[0]
        + """
        const short = new ArrayBuffer(24);
        new DataView(short).setUint32(0, 0x46546c67, true);
        new DataView(short).setUint32(4, 2, true);
        new DataView(short).setUint32(12, 99, true);
        Promise.allSettled([new Uint8Array(40), short].map(Fastsam3dGlb.parse)).then((all) =>
          console.log(all.map((one) => one.reason.message).join("|")));
    """
    )
    (tmp_path / "read.js").write_text(program)
    ran = subprocess.run([NODE, tmp_path / "read.js"], capture_output=True, text=True, timeout=600)
    assert ran.stdout.strip() == "this is no GLB file|the file ends too early", ran.stderr
