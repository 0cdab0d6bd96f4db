"""The items of a batch: folders, patterns and manifests, local and at an address."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from fastsam3d.cluster.batch.places import place_of, split_address
from fastsam3d.cluster.batch.sources import read_items
from fastsam3d.errors import UserError


def names(source: str | Path) -> list[str]:
    return [item.name for item in read_items(str(source))[0]]


def test_a_folder_gives_its_photo_folders(photos):
    items, doubts = read_items(str(photos))
    assert [item.name for item in items] == ["a", "b"]
    assert items[0].image == f"{photos}/a/image.png" and items[0].scene
    assert [Path(path).name for path in items[0].beside] == ["0.png", "1.png", "2.png"]
    assert doubts == []
    assert names(photos / "a") == ["a"]


def test_what_has_no_mask_is_said_before_the_work(photos):
    for number in range(3):
        (photos / "b" / f"{number}.png").unlink()
    _, doubts = read_items(str(photos))
    assert doubts == ["there is no mask beside the picture of b: that will fail."]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*", ["a", "b"]), ("[!a]", ["b"]), ("?/image.png", ["a", "b"]), ("**/b", ["b"])],
)
def test_patterns_match_folders_and_pictures(photos, pattern, found):
    assert names(f"{photos}/{pattern}") == found


def test_a_pattern_of_pictures_takes_the_mask_of_the_same_name(photos):
    for name, kind in (("x", "mask"), ("y", "labels")):
        shutil.copy(photos / "a" / "image.png", photos / f"{name}.png")
        shutil.copy(photos / "a" / "2.png", photos / f"{name}_{kind}.png")
    items, _ = read_items(f"{photos}/*.png")
    assert [(item.name, item.scene) for item in items] == [("x", False), ("y", True)]
    assert items[0].mask == f"{photos}/x_mask.png" and items[1].masks == (f"{photos}/y_labels.png",)
    (photos / "x_mask.png").unlink()
    with pytest.raises(UserError, match=r"no mask for .*x.png: put x_mask.png"):
        read_items(f"{photos}/*.png")


def test_the_same_photos_at_an_address_give_the_same_items(photos):
    pytest.importorskip("fsspec", reason="fsspec is not installed here")
    there = place_of("memory://batch-sources/photos")
    for name in ("a/image.png", "a/0.png", "b/image.png", "b/1.png"):
        there.write(name, (photos / name).read_bytes())
    items, _ = read_items("memory://batch-sources/photos")
    assert [item.name for item in items] == ["a", "b"]
    assert items[1].beside == ("memory://batch-sources/photos/b/1.png",)
    assert names("memory://batch-sources/photos/*/image.png") == ["a", "b"]


@pytest.mark.parametrize("source", ["", "/a", "/*", "/*/image.png", "/list.jsonl"])
def test_a_path_may_be_written_as_an_address(photos, source):
    (photos / "list.jsonl").write_text(json.dumps({"image": f"file://{photos}/a/image.png"}))
    items, _ = read_items(f"file://{photos}{source}")
    assert items[0].image == f"{photos}/a/image.png"


ROWS = [
    {"image": "a/image.png", "mask": "a/1.png", "seed": 7, "room": "kitchen"},
    {"image": "b/image.png", "masks": ["b/0.png", "b/1.png"], "name": "two", "pointmap": "none", "room": "hall"},
]


def written(photos: Path, kind: str) -> Path:
    path = photos / f"list.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image", "mask", "masks", "seed", "name", "pointmap", "room"])
            writer.writeheader()
            for row in ROWS:
                writer.writerow({k: ";".join(v) if isinstance(v, list) else v for k, v in row.items()})
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed here")
        from pyarrow import parquet

        parquet.write_table(
            pyarrow.Table.from_pylist([{k: r.get(k) for k in {**ROWS[0], **ROWS[1]}} for r in ROWS]), path
        )
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_manifests_of_every_kind_say_the_same(photos, kind):
    first, second = read_items(str(written(photos, kind)))[0]
    assert (first.name, first.seed, first.scene) == ("a_1", 7, False)
    assert first.columns == {"room": "kitchen"}
    assert first.image == f"{photos}/a/image.png"
    assert (second.name, second.pointmap, second.scene) == ("two", "none", True)
    assert second.masks == (f"{photos}/b/0.png", f"{photos}/b/1.png")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"picture": "a/image.png"}', "row 1 names no picture"),
        ("nothing", "row 1 is no JSON object"),
        ('{"image": "a/image.png", "seed": -1}', "seed is -1"),
        ('{"image": "a/image.png", "seed": 1.5}', r"seed is 1\.5"),
        ('{"image": "a/image.png", "seed": true}', "seed is True"),
        ('{"image": "a/image.png", "name": "../x"}', "cannot be that of a folder"),
        ('{"image": "a/image.png", "name": ".batch"}', "cannot be that of a folder"),
        ('{"image": "a/image.png", "mask": "a/0.png", "labels": "a/1.png"}', "several of mask, masks and labels"),
        ('{"image": 3}', "image is 3"),
        ('{"image": "a/image.png", "seed": 1e999}', "seed is inf"),
        ('{"image": "../image.png"}', r"the name '\.\.' cannot be that of a folder"),
        ('{"image": ".batch.png"}', r"the name '\.batch' cannot be that of a folder"),
        ("[" * 100_000, "row 1 is no JSON object"),
        ("", "has no row"),
        ('{"image": "a/image.png"}\n{"image": "a/image.png"}', "two items are called a"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_said_with_its_row(photos, line, said):
    (photos / "list.jsonl").write_text(line)
    with pytest.raises(UserError, match=said):
        read_items(str(photos / "list.jsonl"))


def test_a_separator_of_lines_inside_of_a_text_ends_no_row(photos):
    (photos / "list.jsonl").write_text('{"image": "a/image.png", "note": "one\u2028two"}\r\n', encoding="utf-8")
    (item,) = read_items(str(photos / "list.jsonl"))[0]
    assert item.columns == {"note": "one\u2028two"}


def test_a_cell_that_is_too_long_is_said_with_the_row_before(photos):
    (photos / "list.csv").write_text("image,note\na/image.png,x\nb/image.png," + "y" * 131_073)
    with pytest.raises(UserError, match=r"cannot be read as CSV after row 1 .*field larger"):
        read_items(str(photos / "list.csv"))


def test_a_suffix_may_be_in_capitals(photos):
    (photos / "a" / "image.png").rename(photos / "a" / "image.PNG")
    assert names(photos) == ["a", "b"]
    assert names(f"{photos}/*/image.PNG") == ["a"]


def test_a_folder_may_have_a_bracket_in_its_name(photos):
    photos.rename(photos.parent / "trip [2026]")
    assert names(photos.parent / "trip [2026]") == ["a", "b"]


def test_a_pattern_with_a_wrong_range_is_refused(photos):
    with pytest.raises(UserError, match=r"is not a pattern that can be used .*bad character range"):
        read_items(f"{photos}/[z-a]")


def test_the_current_folder_has_a_name(photos, monkeypatch):
    monkeypatch.chdir(photos / "a")
    assert names(".") == ["a"]


def test_a_server_that_does_not_answer_is_told():
    pytest.importorskip("fsspec", reason="fsspec is not installed here")
    with pytest.raises(UserError, match=r"the address ftp://127\.0\.0\.1:1/x cannot be used"):
        place_of("ftp://127.0.0.1:1/x")  # nothing listens at port 1


def test_an_empty_folder_and_an_unknown_place_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photo folder in"):
        read_items(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="is no folder and no manifest"):
        read_items(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="matches no photo folder"):
        read_items(f"{tmp_path}/*.png")


def test_what_an_item_is_made_of_changes_with_its_files_and_settings(photos):
    before = read_items(str(photos))[0][0]
    assert before.made_of("x") == read_items(str(photos))[0][0].made_of("x") != before.made_of("y")
    (photos / "a" / "0.png").write_bytes((photos / "a" / "1.png").read_bytes() + b" ")
    assert read_items(str(photos))[0][0].made_of("x") != before.made_of("x")


@pytest.mark.parametrize(
    ("address", "parts"),
    [("s3://b/x/y.png", ("s3://b/x", "y.png")), ("/y.png", ("/", "y.png")), ("y.png", (".", "y.png"))],
)
def test_addresses_are_split(address, parts):
    assert split_address(address) == parts
