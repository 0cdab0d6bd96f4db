"""Names of the files of a run: never one file twice."""

from __future__ import annotations

import pytest

from fastsam3d.jobs.writing.names import LONGEST, SCENE_FILES, files_of, object_names, usable_name

KINDS = ("glb", "obj", "stl", "ply")


def all_files(names):
    files = [file for name in names for file in files_of(name, KINDS)] + list(SCENE_FILES)
    return [file.casefold() for file in files]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["cup", "vase"], ["cup", "vase"]),
        (["scene"], ["scene_2"]),
        (["Scene"], ["Scene_2"]),
        (["chair", "chair_camera"], ["chair", "chair_camera_2"]),
        (["a_points", "a"], ["a_points", "a_2"]),
        (["cup", "CUP"], ["cup", "CUP_2"]),
        # No file of an object is called as its name with .png: the preview of the second one is free.
        (["a_preview", "a", "a_2"], ["a_preview", "a", "a_2"]),
        # The second one would be called a_2, which the third one is called already.
        (["a", "a", "a_2"], ["a", "a_3", "a_2"]),
        # One letter e with an accent, and a letter e with an accent of its own: one file on macOS.
        (["caf\u00e9", "cafe\u0301"], ["caf\u00e9", "cafe\u0301_2"]),
        (["x", "x_turntable", "x_texture"], ["x", "x_turntable", "x_texture"]),
    ],
)
def test_colliding_names_get_a_number_and_it_is_said(wanted, expected):
    names, told = object_names(wanted)
    assert names == expected
    assert len(told) == sum(old != new for old, new in zip(wanted, names, strict=True))
    for old, new in zip(wanted, names, strict=True):
        assert old == new or any(new in text and "another file of the run" in text for text in told)
    files = all_files(names)
    assert len(files) == len(set(files))


def test_many_colliding_names_write_every_file_once():
    ends = ("", "_camera", "_points", "_preview", "_camera_2", "_2", "_turntable")
    names, _ = object_names([f"{stem}{end}" for end in ends for stem in ("scene", "a", "A", "layout", "report")])
    files = all_files(names)
    assert len(files) == len(set(files))


def test_a_long_name_is_shortened_and_stays_its_own():
    one, other = "m" * 245, "m" * 244 + "n"
    names, told = object_names([one, other])
    assert len(set(names)) == 2 and all(len(name) <= LONGEST and name.startswith("mmm") for name in names)
    assert names[0] == usable_name(one) and len(told) == 2 and "too long" in told[0]
    # Two bytes a letter: bytes count, and no letter is cut in two.
    assert len(usable_name("\u00fc" * 120).encode()) <= LONGEST
    assert usable_name("\u00fc" * 70) == "\u00fc" * 70


def test_signs_that_no_file_can_be_called_are_replaced():
    assert usable_name("a\nb").startswith("a_b_") and usable_name("a\udcffb").startswith("a_b_")
    assert usable_name("\u00b2") == "\u00b2"
