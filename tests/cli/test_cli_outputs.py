"""All files at once or none; progress and warnings."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading

import numpy as np
import pytest

from fastsam3d.cli.console import Console
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import ReportedWarnings
from fastsam3d.jobs.output_folder import OutputFolder, json_text


def test_files_appear_at_publish(tmp_path):
    target = tmp_path / "a" / "b"
    with OutputFolder(target) as folder:
        (folder / "x.txt").write_text("x")
        assert not (target / "x.txt").exists()
        assert folder.publish() == [target / "x.txt"]
    assert [path.name for path in target.iterdir()] == ["x.txt"]


def test_folders_that_were_made_go_again_and_others_stay(tmp_path):
    (tmp_path / "a").mkdir()
    with OutputFolder(tmp_path / "a" / "b" / "c") as folder:
        (folder / "x.txt").write_text("x")
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
    assert list((tmp_path / "a").iterdir()) == []


def test_a_folder_in_the_way_is_named_before_anything_is_moved(tmp_path):
    (tmp_path / "b.txt").mkdir()
    with OutputFolder(tmp_path) as folder:
        (folder / "a.txt").write_text("a")
        (folder / "b.txt").write_text("b")
        with pytest.raises(UserError, match=r"b\.txt is a folder"):
            folder.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_json_is_strict():
    values = {"a": np.float32(1.5), "b": float("nan"), "c": (1, np.array([2, 3])), 4: None, "ü": float("inf")}
    assert json.loads(json_text(values)) == {"a": 1.5, "b": None, "c": [1, [2, 3]], "4": None, "ü": None}


def test_warnings_are_shown_once_and_kept():
    stream = io.StringIO()
    told = ReportedWarnings(Console(stream=stream))
    with told.logging():
        logging.getLogger("fastsam3d.sam3d.pipeline").warning("no voxel is %s", "occupied")
        told.warn("no voxel is occupied")
    logging.getLogger("fastsam3d.sam3d.pipeline").warning("afterwards")
    assert stream.getvalue() == "warning: no voxel is occupied\n"
    assert told.warnings == ["no voxel is occupied"]


class Terminal(io.StringIO):
    """A terminal that says when a text has been written to it."""

    def __init__(self, awaited: str = "") -> None:
        super().__init__()
        self.awaited, self.written = awaited, threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        count = super().write(text)
        if self.awaited in self.getvalue():
            self.written.set()
        return count


HOUR = 3600.0


@pytest.mark.parametrize(("delay", "shown"), [(HOUR, False), (0.0, True)])
def test_progress_shows_only_long_work(monkeypatch, delay, shown):
    monkeypatch.setattr("fastsam3d.cli.console.TICK", HOUR)  # only this test lets it tick
    monkeypatch.setattr("fastsam3d.cli.console.DELAY", delay)
    stream = Terminal()
    console = Console(stream=stream)
    with console.progress():
        console.step("mesh decoder", 3, 7)
        console._progress.tick()
        assert ("mesh decoder" in stream.getvalue()) == ("3/7" in stream.getvalue()) == shown
    assert shown or stream.getvalue() == ""


def test_progress_goes_on_by_itself(monkeypatch):
    monkeypatch.setattr("fastsam3d.cli.console.TICK", 0.001)
    monkeypatch.setattr("fastsam3d.cli.console.DELAY", 0.0)
    console = Console(stream=(stream := Terminal("3/7")))
    with console.progress():
        console.step("mesh decoder", 3, 7)
        assert stream.written.wait(600)


def test_quiet_shows_no_progress(monkeypatch):
    monkeypatch.setattr("fastsam3d.cli.console.TICK", 0.0)
    monkeypatch.setattr("fastsam3d.cli.console.DELAY", 0.0)
    monkeypatch.setattr("fastsam3d.cli.console.ProgressBar", lambda stream: pytest.fail("nothing may show it"))
    stream = Terminal()
    console = Console(quiet=True, stream=stream)
    with console.progress():
        console.step("mesh decoder", 3, 7)
    assert stream.getvalue() == ""


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from fastsam3d.jobs.output_folder import OutputFolder\n"
        "with OutputFolder(sys.argv[1]) as folder:\n"
        "    (folder / 'scene.glb').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.glob(".partial-*")
    prefix, gone = left.name.rsplit("-", 1)
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    kept = [f"{prefix}-{running.pid}", f"{prefix}-{gone}.txt", f".partial-elsewhere-{gone}", ".partial", ".scene"]
    try:
        for name in kept:
            (tmp_path / name).mkdir()
        outside = tmp_path / "outside"
        outside.mkdir()
        (tmp_path / f"{prefix}-{2**22 + 1}").symlink_to(outside)  # above the highest number of a process
        with OutputFolder(tmp_path):
            assert not left.exists()
    finally:
        running.communicate(b"\n")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "outside", f"{prefix}-{2**22 + 1}"}


def test_files_of_an_earlier_run_that_are_not_of_this_one_are_named(run, folder, tmp_path):
    words = ("--image_path", folder, "--output_dir", tmp_path / "o", "preview=false")
    assert run("infer", *words, "--export", "glb,obj,stl")[0] == 0
    code, _, stderr = run("infer", *words, "--export", "glb")
    assert code == 0 and "of an earlier run" in stderr and "vase_0.obj and 1 more" in stderr
    (tmp_path / "o" / "report.json").write_text("[1]")
    code, _, stderr = run("infer", *words, "--export", "glb")
    assert code == 0 and "earlier run" not in stderr
