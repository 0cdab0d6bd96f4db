"""Whole batches in this process: results, index, failures as rows, and going on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from batch_stand_in import StandIn, stand_in_items
from PIL import Image

from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.cluster.batch.places import place_of
from fastsam3d.cluster.batch.running import BatchInterrupted, run_items
from fastsam3d.errors import UserError
from fastsam3d.jobs.request import request_with
from fastsam3d.jobs.scenes import run_scene


def index_of(folder: Path) -> list[dict]:
    if (folder / "index.parquet").is_file():
        from pyarrow import parquet

        return parquet.read_table(folder / "index.parquet").to_pylist()
    return [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.glb"))}


def test_a_folder_of_photos_becomes_a_folder_an_item_with_index_and_report(batch, photos, tmp_path, loads):
    result = batch(photos)
    out = tmp_path / "out"
    assert (result.failed, loads) == (0, ["mini"])
    assert {path.name for path in out.iterdir()} == {"a", "b", ".batch", "report.json", Path(result.index).name}
    rows = index_of(out)
    assert [(row["name"], row["status"], row["objects"]) for row in rows] == [("a", "ok", 3), ("b", "ok", 3)]
    # Two stages of two steps; the second of the guided ones needs two evaluations a step: counted by the job itself.
    own = json.loads((out / "a" / "report.json").read_text())
    stages = own["acceleration"]["stages"].values()
    assert rows[0]["evaluations"] == sum(stage["evaluations"] for stage in stages) > 0
    assert rows[0]["faces"] == sum(item["faces"] for item in own["objects"])
    sizes = [path.stat().st_size for path in (out / "a").iterdir() if path.is_file()]
    assert rows[0]["bytes"] == sum(sizes)
    assert rows[0]["mask_iou"] == pytest.approx(np.mean([item["mask_iou"] for item in own["objects"]]))
    assert rows[0]["seconds_sparse_structure"] > 0
    assert rows[0]["image"] == f"{photos}/a/image.png"
    assert own["batch"]["item"] == "a"
    report = json.loads((out / "report.json").read_text())
    assert (report["items"], report["objects"], report["statuses"]) == (2, 6, {"ok": 2})


def test_the_files_are_those_of_the_job_alone(batch, photos, tmp_path, loads):
    batch(photos)
    steps = {"inference_steps": 2}
    request = request_with(
        samplers={"ss_sampler": steps, "slat_sampler": steps},
        **{"device": "cpu", "threads": 1, "preview": False, "export": ["glb"], "formats": ["mesh"]},
        image_dir=str(photos / "a"),
        output_dir=str(tmp_path / "alone"),
    )
    run_scene(request)
    assert content(tmp_path / "alone") == content(tmp_path / "out" / "a") != {}


def test_what_is_done_is_not_done_again(batch, photos, tmp_path, loads):
    batch(photos)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.glb")}
    assert batch(photos).report["reused"] == 2
    (tmp_path / "out" / "b" / "scene.glb").unlink()
    assert batch(photos).report["reused"] == 1
    assert loads == ["mini", "mini"]  # nothing was loaded for the second run
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.glb")}
    assert after.keys() == before.keys()
    assert all(after[path] == before[path] for path in before if path.parent.name == "a")
    assert batch(photos, seed=1).report["reused"] == 0
    assert batch(photos, seed=1, resume=False).report["reused"] == 0


def test_results_that_the_ledger_does_not_know_are_found_by_the_workers(batch, photos, tmp_path, loads, rows):
    batch(photos)
    (tmp_path / "out" / ".batch" / "rows.jsonl").unlink()
    result = batch(photos)
    assert result.failed == 0 and loads == ["mini"]
    assert all(row["reused"] and row["evaluations"] > 0 for row in rows().values())


def test_an_item_that_fails_is_a_row_and_the_rest_is_done(batch, photos, tmp_path, rows):
    (photos / "a" / "image.png").write_bytes(b"no picture")
    result = batch(photos)
    assert result.failed == 1
    found = index_of(tmp_path / "out")
    assert [row["status"] for row in found] == ["failed", "ok"]
    assert "is not an image that can be read" in found[0]["error"]
    assert result.report["failures"][0]["name"] == "a"
    assert not list((tmp_path / "out").glob("a/*"))
    Image.fromarray(np.full((48, 64, 3), 99, np.uint8)).save(photos / "a" / "image.png")
    mended = batch(photos)
    assert (mended.failed, mended.report["reused"]) == (0, 1)


def test_a_scene_with_an_object_that_fails_has_failed_in_part(batch, photos, tmp_path):
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(photos / "a" / "1.png")
    result = batch(photos)
    row = index_of(tmp_path / "out")[0]
    assert (result.failed, row["status"], row["objects"], row["failed_objects"]) == (1, "failed", 3, 1)
    assert "object_1: " in row["error"]
    assert (tmp_path / "out" / "a" / "scene.glb").is_file()


def test_manifests_carry_their_columns_and_seeds_through(batch, photos, tmp_path):
    lines = [
        {"image": "a/image.png", "mask": "a/0.png", "name": "one", "seed": 3, "room": "hall", "status": "new", "n": 1},
        {"image": "a/image.png", "masks": ["a/0.png", "b/1.png"], "name": "two", "tags": ["x", 1], "n": 2.5},
    ]
    (photos / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert batch(photos / "list.jsonl").failed == 0
    first, second = index_of(tmp_path / "out")
    assert (first["room"], first["input_status"], first["status"], first["n"]) == ("hall", "new", "ok", 1)
    assert (second["objects"], second["n"]) == (2, 2.5)
    assert {path.name for path in (tmp_path / "out" / "one").iterdir()} == {"one.glb", "report.json"}
    assert json.loads((tmp_path / "out" / "one" / "report.json").read_text())["seed"] == 3


def test_files_at_an_address_come_in_and_go_out(batch, photos, tmp_path, loads):
    pytest.importorskip("fsspec", reason="fsspec is not installed here")
    batch(photos)
    there = place_of("memory://batch-test/in")
    for name in place_of(str(photos)).files():
        there.write(name, (photos / name).read_bytes())
    result = batch("memory://batch-test/in", "memory://batch-test/out")
    assert result.failed == 0
    out = place_of("memory://batch-test/out")
    for name, data in content(tmp_path / "out").items():
        assert out.read(name) == data
    assert batch("memory://batch-test/in", "memory://batch-test/out").report["reused"] == 2
    # The driver was killed before it had written its rows: the workers find the results.
    for name in [name for name in out.files() if name.startswith(".batch/")]:
        out._system.rm_file(f"{out._root}/{name}")
    assert batch("memory://batch-test/in", "memory://batch-test/out").failed == 0
    assert len(loads) == 2


def run(tmp_path, items, work=None, **options):
    options = BatchOptions(output=str(tmp_path / "out"), engine="inline", **options)
    return run_items(options, items, work or StandIn(str(tmp_path / "out")), {"input": "stand-in"})


def test_a_defect_of_one_item_is_its_row(tmp_path):
    result = run(tmp_path, stand_in_items(4, item_1="fail", item_2="break"))
    assert [row["status"] for row in index_of(tmp_path / "out")] == ["ok", "failed", "failed", "ok"]
    assert [item["error"] for item in result.report["failures"]] == ["the mask is empty.", "ValueError: a defect"]


def test_a_pipeline_that_cannot_be_loaded_ends_the_batch_with_its_own_sentence(tmp_path):
    with pytest.raises(UserError, match=r"there are no weights\."):
        run(tmp_path, stand_in_items(3), StandIn(str(tmp_path / "out"), loads=False))
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()  # the user's own: it stays
    with pytest.raises(UserError, match=r"there are no weights\."):
        run(tmp_path, stand_in_items(3), StandIn(str(tmp_path / "out"), loads=False))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_mask_that_is_missing_is_told_without_a_type_of_python(batch, photos, tmp_path):
    line = {"image": "a/image.png", "masks": ["a/0.png", "a/9.png"]}
    (photos / "list.jsonl").write_text(json.dumps(line))
    assert batch(photos / "list.jsonl").failed == 1
    assert index_of(tmp_path / "out")[0]["error"].startswith(f"{photos}/a/9.png cannot be read (No such file")


def test_a_damaged_report_of_a_result_is_made_again(batch, photos, tmp_path):
    (photos / "list.jsonl").write_text('{"image": "a/image.png", "mask": "a/0.png", "name": "a"}')
    batch(photos / "list.jsonl")
    path = tmp_path / "out" / "a" / "report.json"
    report = json.loads(path.read_text())
    del report["acceleration"]
    path.write_text(json.dumps(report))
    (tmp_path / "out" / ".batch" / "rows.jsonl").unlink()
    assert batch(photos / "list.jsonl").failed == 0
    assert "acceleration" in json.loads(path.read_text())


@pytest.mark.parametrize("name", ["..", ".batch", "", "report.json"])
def test_no_item_gets_a_folder_that_is_not_its_own(tmp_path, name):
    with pytest.raises(UserError, match=r"an item (is|cannot be) called"):
        run(tmp_path, [Item(name, "x.png")])


def test_numbers_and_names_that_a_column_cannot_hold_become_text(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed here")
    items = [
        Item("a", "x\udcff.png", columns={"v": 0.5, "w": 1, "\udcff": 1}),
        Item("b", "y.png", columns={"v": 2**53 + 1, "w": 2**63}),
    ]
    assert run(tmp_path, items).failed == 0
    first, second = index_of(tmp_path / "out")
    assert (first["image"], first["\\udcff"]) == ("x\\udcff.png", 1)
    assert (first["v"], second["v"]) == ("0.5", "9007199254740993")
    assert (first["w"], second["w"]) == ("1", "9223372036854775808")


@pytest.mark.parametrize("parquet", [True, False])
def test_an_index_may_be_the_next_manifest(tmp_path, monkeypatch, parquet):
    if parquet:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed here")
    monkeypatch.setattr("fastsam3d.cluster.batch.index.can_write_parquet", lambda: parquet)
    columns = {"status": "new", "input_status": "old", "input_input_status": "oldest", "seconds_sparse_structure": 9}
    assert run(tmp_path, [Item("a", "x.png", columns=columns)]).failed == 0
    (row,) = index_of(tmp_path / "out")
    assert (row["status"], row["seconds_sparse_structure"]) == ("ok", 0.0)
    assert (row["input_status"], row["input_input_status"]) == ("old", "oldest")
    assert (row["input_input_input_status"], row["input_seconds_sparse_structure"]) == ("new", 9)


def test_a_full_disk_is_told_in_a_line(tmp_path, monkeypatch):
    """The files that a process writes are bounded here, which fails as a full disk does."""
    resource = pytest.importorskip("resource", reason="this system has no such bound")
    bounds = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, bounds[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write to .*rows\.jsonl \(.*\): make room on the disk"):
            run(tmp_path, stand_in_items(30), StandIn(str(tmp_path / "out"), files=False))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, bounds)


def test_an_interrupted_batch_goes_on(tmp_path):
    items = stand_in_items(6)

    class Interrupted(StandIn):
        def run(self, fetched):
            if fetched.item.name == "item_00003":
                raise KeyboardInterrupt
            return super().run(fetched)

    with pytest.raises(BatchInterrupted, match="3 of 6 items are done"):
        run(tmp_path, items, Interrupted(str(tmp_path / "out")))
    assert run(tmp_path, items).report["reused"] == 3
    lines = (tmp_path / "out" / "written.log").read_text().splitlines()
    assert sorted(lines) == [item.name for item in items]  # each once


def test_two_batches_never_share_an_output(tmp_path):
    class Nested(StandIn):
        def run(self, fetched):
            run(tmp_path, stand_in_items(1))
            return super().run(fetched)

    run(tmp_path, stand_in_items(1), Nested(str(tmp_path / "out")))
    assert "another run works in" in index_of(tmp_path / "out")[0]["error"]


def test_a_line_of_the_ledger_that_was_cut_off_is_passed_over(tmp_path):
    items = stand_in_items(3)
    run(tmp_path, items)
    ledger = tmp_path / "out" / ".batch" / "rows.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-20])
    result = run(tmp_path, items)
    assert (result.failed, result.report["reused"]) == (0, 2)
    assert len((tmp_path / "out" / "written.log").read_text().splitlines()) == 3
