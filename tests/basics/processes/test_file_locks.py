"""Locks of open files; those of Windows on a stand-in of its module msvcrt."""

from __future__ import annotations

import errno
import os
import sys
from types import ModuleType

import pytest

from fastsam3d.basics.processes.file_locks import try_lock


@pytest.fixture
def two(tmp_path):
    """Two descriptors of one file."""
    files = [os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2)]
    yield files
    for file in files:
        os.close(file)


def test_the_second_has_to_wait_until_the_first_is_closed(tmp_path, two):
    pytest.importorskip("fcntl", reason="locks of POSIX")
    third = os.open(tmp_path / "lock", os.O_RDWR)
    assert try_lock(third) is True and try_lock(two[0]) is False
    os.close(third)
    assert try_lock(two[0]) is True and try_lock(two[1]) is False


class Windows(ModuleType):
    """Locks bytes as `msvcrt.locking` is documented: from the current place of the file, EACCES where it is locked."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.locked: dict[int, int] = {}

    def locking(self, file: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        place = os.lseek(file, 0, os.SEEK_CUR)
        if self.locked.setdefault(place, file) != file:
            raise OSError(errno.EACCES, "Permission denied")


def test_windows_locks_a_byte_behind_the_content_and_the_place_stays(monkeypatch, two):
    windows = Windows()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    os.write(two[0], b"who works here")
    assert try_lock(two[0]) is True and try_lock(two[1]) is False
    assert set(windows.locked) == {1 << 30}
    os.write(two[0], b"!")
    assert os.pread(two[1], 100, 0) == b"who works here!"


def test_a_system_without_locks_says_so(monkeypatch, two):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", None)
    assert try_lock(two[0]) is None
