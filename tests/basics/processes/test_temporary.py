"""Folders of killed processes are removed by the next one; those in use are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastsam3d.basics.processes.temporary import LOCK, own_folder, remove_abandoned

pytest.importorskip("fcntl", reason="folders are locked on POSIX systems only")

HOLDER = """
import sys, time
from pathlib import Path
from fastsam3d.basics.processes.temporary import own_folder
with own_folder("demo-", Path(sys.argv[1])) as folder:
    (folder / "result.glb").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_a_folder_until_the_next_start(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        try:
            assert remove_abandoned("demo-", tmp_path) == []  # in use
        finally:
            process.send_signal(signal.SIGKILL)
    assert (folder / "result.glb").exists()
    with own_folder("demo-", tmp_path) as own:
        assert not folder.exists() and own.is_dir()
    assert not own.exists()


def test_links_and_fresh_folders_are_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / LOCK).touch()
    (tmp_path / "demo-link").symlink_to(target)
    (tmp_path / "demo-fresh").mkdir()
    old = tmp_path / "demo-old"
    old.mkdir()
    os.utime(old, (time.time() - 3600,) * 2)
    (tmp_path / "demo-file").touch()
    assert remove_abandoned("demo-", tmp_path) == [old]
    assert target.is_dir() and (tmp_path / "demo-fresh").is_dir()
