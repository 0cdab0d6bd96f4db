"""Paths that users give, among them those that the system cannot look for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastsam3d.basics.paths import require_file, require_folder, shortened, user_path
from fastsam3d.errors import UserError


def test_a_path_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    assert user_path("~/none/at/all") == tmp_path / "none" / "at" / "all"
    assert user_path("~/file/below") == tmp_path / "file" / "below"
    assert user_path("~/file") == tmp_path / "file"


def test_what_the_system_cannot_look_for_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UserError, match=r"circle cannot be looked for \(Too many levels of symbolic links\)"):
        user_path(tmp_path / "circle")
    with pytest.raises(UserError, match=r"cannot be looked for \(File name too long\)") as raised:
        user_path(tmp_path / ("a" * 5000))
    assert len(str(raised.value)) < 400


def test_a_folder_that_may_not_be_looked_into_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as a user for whom no permission counts, so the system's answers are replaced."""
    path = tmp_path / "file"
    path.touch()
    asked = []
    monkeypatch.setattr("os.access", lambda path, mode: asked.append((path, mode)))
    with pytest.raises(UserError, match=r"the mask may not be read by you \(permission denied\)"):
        require_file(path, "the mask")
    with pytest.raises(UserError, match=r"the folder .* may not be read by you"):
        require_folder(tmp_path)
    assert asked == [(path, os.R_OK), (tmp_path, os.R_OK | os.X_OK)]

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(UserError, match=r"file cannot be looked for \(Permission denied\)"):
        user_path(path)


def test_long_texts_keep_their_ends() -> None:
    assert shortened("a" * 300) == "a" * 300
    assert shortened("a" * 200 + "b" * 200) == "a" * 150 + "..." + "b" * 75
