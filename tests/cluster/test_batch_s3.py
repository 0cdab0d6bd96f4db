"""A whole batch against a local server that speaks S3: files in, files out, going on."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest

from fastsam3d.cluster.batch.places import place_of
from fastsam3d.cluster.batch.sources import read_items

pytest.importorskip("s3fs", reason="s3fs is not installed here")
server = pytest.importorskip("moto.server", reason="moto is not installed here: pip install 'moto[server]'")
pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket."""
    import s3fs

    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    name = f"photos-{secrets.token_hex(4)}"  # the server keeps buckets as long as the process lives
    host, port = running.get_host_and_port()
    values = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
    }
    for key, value in values.items():
        monkeypatch.setenv(key, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem(endpoint_url=values["AWS_ENDPOINT_URL"]).mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


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
