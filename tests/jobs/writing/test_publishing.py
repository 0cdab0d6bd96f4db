"""Files of a run appear as a set, and never in place of what was read."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastsam3d.errors import UserError
from fastsam3d.jobs.output_folder import OutputFolder

KILLED = (
    "import os, signal, sys\n"
    "from fastsam3d.jobs import output_folder\n"
    "original, left = os.replace, int(sys.argv[2])\n"
    "def replace(source, target):\n"
    "    global left\n"
    "    if '.journal' not in str(target):\n"
    "        if left == 0:\n"
    "            os.kill(os.getpid(), signal.SIGKILL)\n"
    "        left -= 1\n"
    "    original(source, target)\n"
    "os.replace = replace\n"
    "with output_folder.OutputFolder(sys.argv[1]) as folder:\n"
    "    for name in ('a.glb', 'b.glb', 'report.json'):\n"
    "        (folder / name).write_text('new')\n"
    "    folder.publish()\n"
)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_what_a_kill_between_two_files_left_is_finished(tmp_path, listener, moved):
    for name in ("a.glb", "b.glb", "report.json"):
        (tmp_path / name).write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(moved)], check=False)
    assert done.returncode == -9
    assert list(contents(tmp_path).values()).count("new") == moved
    with OutputFolder(tmp_path, listener=listener):
        assert contents(tmp_path) == dict.fromkeys(("a.glb", "b.glb", "report.json"), "new")
    assert len(listener.warnings) == 1 and f"the last {3 - moved} of them were moved now" in listener.warnings[0]
    assert {path.name for path in tmp_path.iterdir()} == {"a.glb", "b.glb", "report.json"}


def test_an_interruption_while_files_are_moved_waits_for_the_last(tmp_path, monkeypatch):
    original, calls = os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == 3:  # the journal, the first file, and then
            raise KeyboardInterrupt
        original(source, target)

    with OutputFolder(tmp_path) as folder:
        for name in ("a", "b", "c"):
            (folder / name).write_text("new")
        monkeypatch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt, match="all files were written already"):
            folder.publish()
        assert folder.published
    assert contents(tmp_path) == {"a": "new", "b": "new", "c": "new"}


@pytest.mark.parametrize("kind", ["itself", "link", "hard link", "link to its folder"])
def test_a_file_that_was_read_is_not_written(tmp_path, kind):
    photo, out = tmp_path / "photos" / "chair.png", tmp_path / "out"
    photo.parent.mkdir()
    photo.write_text("a photo")
    if kind == "itself":
        out = photo.parent
    elif kind == "link to its folder":
        out.symlink_to(photo.parent)
    else:
        out.mkdir()
        (out / "chair.png").symlink_to(photo) if kind == "link" else os.link(photo, out / "chair.png")
    with pytest.raises(UserError, match=r"was read in this run.*Choose another --output_dir"):
        OutputFolder(out, [photo], {"chair.png"}).__enter__()
    # Names that nobody foresaw are looked at again before anything is moved.
    with OutputFolder(out, [photo]) as folder:
        (folder / "chair.png").write_text("a texture")
        (folder / "a.glb").write_text("a mesh")
        with pytest.raises(UserError, match="was read in this run"):
            folder.publish()
    assert photo.read_text() == "a photo" and not (out / "a.glb").exists()


def test_messages_call_files_by_the_names_that_they_would_have(tmp_path):
    folder = OutputFolder(tmp_path / "o")
    with folder:
        assert folder.shown(f"{folder / 'a.glb'} is too large") == f"{tmp_path / 'o' / 'a.glb'} is too large"

    def fail():
        with folder:
            raise UserError(f"{folder / 'a.glb'} cannot be written")

    with pytest.raises(UserError) as caught:
        fail()
    assert str(caught.value) == f"{tmp_path / 'o' / 'a.glb'} cannot be written"
