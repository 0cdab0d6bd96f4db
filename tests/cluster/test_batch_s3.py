"""A whole batch in one process against a local server that speaks S3: files in, files out, going on."""

from __future__ import annotations

import json

import pytest

from fastsam3d.cluster.batch.places import place_of
from fastsam3d.cluster.batch.sources import read_items

pytestmark = pytest.mark.slow


def test_a_batch_reads_from_s3_and_writes_to_s3(bucket, batch, photos, tmp_path, loads):
    there = place_of(f"{bucket}/in")
    for name in place_of(str(photos)).files():
        there.write(name, (photos / name).read_bytes())
    assert [item.name for item in read_items(f"{bucket}/in")[0]] == ["a", "b"]
    batch(photos, "local")
    result = batch(f"{bucket}/in", f"{bucket}/out")
    assert result.failed == 0
    out = place_of(f"{bucket}/out")
    local = {str(path.relative_to(tmp_path / "local")) for path in (tmp_path / "local").rglob("*.glb")}
    assert local and local <= out.files().keys()
    for name in local:
        assert out.read(name) == (tmp_path / "local" / name).read_bytes()
    assert {"index.parquet", "report.json"} & out.files().keys() >= {"report.json"}
    assert batch(f"{bucket}/in", f"{bucket}/out").report["reused"] == 2
    out._system.rm_file(f"{out._root}/a/scene.glb")
    assert batch(f"{bucket}/in", f"{bucket}/out").report["reused"] == 1
    assert out.size("a/scene.glb") == (tmp_path / "local" / "a" / "scene.glb").stat().st_size


def test_a_manifest_on_s3_names_its_neighbours(bucket, batch, photos):
    place = place_of(bucket)
    for name in ("a/image.png", "a/0.png"):
        place.write(name, (photos / name).read_bytes())
    place.write("list.jsonl", json.dumps({"image": "a/image.png", "mask": "a/0.png", "room": 1}).encode())
    assert batch(f"{bucket}/list.jsonl", f"{bucket}/out").failed == 0
    assert {"out/a_0/a_0.glb", "out/a_0/report.json"} <= place.files().keys()
