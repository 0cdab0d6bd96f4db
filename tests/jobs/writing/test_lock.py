"""One run at a time in a folder."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys

import pytest

from fastsam3d.errors import UserError
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.writing.lock import LOCK, FolderLock, process_start

HOLD = (
    "import sys\n"
    "from pathlib import Path\n"
    "from fastsam3d.jobs.writing.lock import FolderLock\n"
    "lock = FolderLock(Path(sys.argv[1]))\n"
    "print('held', flush=True)\n"
    "input()\n"
)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_run_in_a_folder_is_refused_while_the_first_lives(tmp_path, other):
    with pytest.raises(UserError, match=f"another run works in .*process {other.pid} on .*--output_dir"):
        OutputFolder(tmp_path).__enter__()
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert (tmp_path / LOCK).is_file()
    with OutputFolder(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_of_one_process_are_kept_apart_too(tmp_path):
    with OutputFolder(tmp_path), pytest.raises(UserError, match="another run works in"):
        OutputFolder(tmp_path).__enter__()


def test_a_file_of_another_machine_is_not_taken_over(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "process": 1, "start": "5"}))
    with pytest.raises(UserError, match=r"on elsewhere.*remove"):
        FolderLock(tmp_path)


@pytest.mark.skipif(process_start(os.getpid()) is None, reason="the system does not tell when a process began")
def test_a_number_that_was_given_to_a_new_process_is_no_hindrance(tmp_path, other):
    facts = {"host": platform.node(), "process": os.getppid(), "start": "before"}
    folder = tmp_path / "o"
    folder.mkdir()
    (folder / LOCK).write_text(json.dumps(facts))
    FolderLock(folder).release()
    (folder / LOCK).write_text(json.dumps(facts | {"start": process_start(os.getppid())}))
    with pytest.raises(UserError, match=f"process {os.getppid()}"):
        FolderLock(folder)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"process": -1}'])
def test_a_damaged_file_is_taken_over(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    lock = FolderLock(tmp_path)
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
