"""`download` with a Hub of our own in place of the network: what is asked for, and every refusal as a line."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import pytest

from fastsam3d.cli.main import main

FILES = {
    "checkpoints/pipeline.yaml": 10,
    "checkpoints/ss_generator.ckpt": 6_700,
    "LICENSE": 5,
    "assets/teaser.mp4": 10**15,
}


class HTTPError(Exception):
    """As in the libraries below huggingface_hub: carries the response."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.response = None if status is None else types.SimpleNamespace(status_code=status)


class HfHubHTTPError(HTTPError, OSError):
    pass


class RepositoryNotFoundError(HfHubHTTPError):
    pass


class GatedRepoError(RepositoryNotFoundError):
    pass


class RevisionNotFoundError(HfHubHTTPError):
    pass


class ConnectError(Exception):
    pass


class OfflineModeIsEnabled(ConnectionError):
    pass


class LocalTokenNotFoundError(EnvironmentError):
    pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A Hub that has `FILES` and records how they are fetched; `error` makes it refuse."""
    module = types.ModuleType("huggingface_hub")
    module.no_access, module.error, module.late_error = None, None, None  # type: ignore[attr-defined]
    module.calls = []  # type: ignore[attr-defined]

    class HfApi:
        def auth_check(self, repository: str) -> None:
            if module.no_access is not None:
                raise module.no_access

        def model_info(self, repository: str, revision: str | None, files_metadata: bool) -> types.SimpleNamespace:
            assert files_metadata
            if module.error is not None:
                raise module.error
            siblings = [types.SimpleNamespace(rfilename=name, size=size) for name, size in FILES.items()]
            return types.SimpleNamespace(sha=f"commit-of-{revision or 'main'}", siblings=siblings)

    def snapshot_download(repository: str, **options: object) -> None:
        module.calls.append((repository, options))
        if module.late_error is not None:
            raise module.late_error
        for name, size in FILES.items():
            if name.startswith("checkpoints/"):
                path = Path(str(options["local_dir"])) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * size)

    module.HfApi, module.snapshot_download = HfApi, snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_files_are_fetched_of_one_commit(hub, tmp_path, capsys) -> None:
    output = tmp_path / "weights"
    assert main(["download", f"output={output}", "revision=v1"]) == 0
    captured = capsys.readouterr()
    ((repository, options),) = hub.calls
    assert repository == "facebook/sam-3d-objects"
    assert options["revision"] == "commit-of-v1"
    assert options["local_dir"] == str(output)
    assert options["allow_patterns"] == ["checkpoints/*", "LICENSE*", "README*"]
    assert f"checkpoint_dir={output}" in captured.out
    assert "3 files, 0.0 GiB" in captured.err, "the film is not among them"


def test_default_folders_and_moge(hub, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["download"]) == 0
    assert hub.calls[-1][1]["local_dir"] == "checkpoints/sam3d"
    FILES_BEFORE = dict(FILES)
    try:
        FILES["model.pt"] = 7
        assert main(["download", "model=moge"]) == 0
    finally:
        FILES.clear()
        FILES.update(FILES_BEFORE)
    assert hub.calls[-1][0] == "Ruicheng/moge-vitl"
    assert "depth_model=checkpoints/moge" in capsys.readouterr().out


REFUSALS = [
    (GatedRepoError("401 Client Error", 401), ["given out on request", "not logged in", "hf auth login"]),
    (GatedRepoError("403 Client Error", 403), ["no access to facebook/sam-3d-objects yet", "Ask for it"]),
    (RepositoryNotFoundError("404", 404), ["was not found"]),
    (RepositoryNotFoundError("401", 401), ["does not accept your token"]),
    (LocalTokenNotFoundError("Token is required"), ["does not accept your token", "hf auth login"]),
    (RevisionNotFoundError("404", 404), ["no such revision"]),
    (ConnectError("[Errno -2] Name or service not known"), ["cannot be reached", "proxy", "goes on where it stopped"]),
    (ConnectionError("refused"), ["cannot be reached"]),
    (TimeoutError("timed out"), ["cannot be reached (timed out)"]),
    (OfflineModeIsEnabled("offline"), ["HF_HUB_OFFLINE"]),
    (HfHubHTTPError("502 Bad Gateway", 502), ["answers with an error (502)", "later"]),
    (HfHubHTTPError("429 Too Many Requests\nmore", 429), ["refuses the download (429 Too Many Requests)"]),
    (PermissionError(13, "Permission denied"), ["cannot be written: Permission denied", "output=DIR"]),
    (OSError(28, "No space left on device"), ["cannot be written: No space left on device"]),
]


@pytest.mark.parametrize(("error", "expected"), REFUSALS)
@pytest.mark.parametrize("when", ["no_access", "error", "late_error"])
def test_refusals_are_a_line(hub, tmp_path, capsys, error, expected, when) -> None:
    setattr(hub, when, error)
    assert main(["download", f"output={tmp_path / 'o'}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert len(captured.err.strip().splitlines()) == 1 + (when == "late_error"), captured.err
    assert not (tmp_path / "o").exists()
    for part in expected:
        assert part in last, last


def test_defects_are_not_hidden(hub, tmp_path, capsys) -> None:
    hub.error = KeyError("a bug")
    assert main(["download", f"output={tmp_path}", "--traceback"]) == 1
    stderr = capsys.readouterr().err
    assert "KeyError" in stderr and "a bug" in stderr and "Traceback" in stderr


def test_space_is_checked_first(hub, tmp_path, monkeypatch, capsys) -> None:
    usage = types.SimpleNamespace(total=0, used=0, free=6_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert main(["download", f"output={tmp_path / 'a' / 'b'}"]) == 2
    assert "0.0 GiB are free" in capsys.readouterr().err
    assert hub.calls == []
    assert not (tmp_path / "a").exists()
    # What lies there already needs no more room.
    (tmp_path / "a" / "b" / "checkpoints").mkdir(parents=True)
    (tmp_path / "a" / "b" / "checkpoints" / "ss_generator.ckpt").write_bytes(b"x" * 6_000)
    assert main(["download", f"output={tmp_path / 'a' / 'b'}"]) == 0


def test_missing_package(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["download", f"output={tmp_path / 'o'}"]) == 2
    assert "pip install 'fastsam3d[sam3d]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["outptu=x"], "unknown key 'outptu'"), (["model=sam4d"], "sam3d or moge"), (["x"], "key=value")],
)
def test_unknown_words(words, expected, capsys) -> None:
    assert main(["download", *words]) == 2
    assert expected in capsys.readouterr().err


def test_help(capsys) -> None:
    assert main(["download", "--help"]) == 0
    out = capsys.readouterr().out
    assert "output=" in out and "hf auth login" in out
