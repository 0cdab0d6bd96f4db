"""The jobs of the service on disk: a folder each, with its inputs, its state and its results.

Ingress and workers use the same folder. Every state is written whole or not at all, so a job survives the death of any
process.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastsam3d.basics.files import write_json
from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
WAITING, ENDED = (QUEUED, RUNNING), (DONE, FAILED)
DISCARDED = ".discarded-"
"""Beginning of the names of folders that are being removed."""
UPLOAD_SECONDS = 600.0
"""Age from which a job that was never accepted is removed."""
NAME = re.compile(r"[a-z0-9]{32}")
JOB, STATE, INPUTS, RESULTS, CANCEL = "job.json", "state.json", "inputs", "results", "cancel"

State = dict[str, Any]


class JobStore:
    """A folder of jobs.

    Args:
        path: created if needed.
        keep_seconds: results are kept.
        most_bytes: of all jobs; if there are more, the oldest finished jobs are removed first.

    Raises:
        UserError: the folder cannot be created.
    """

    def __init__(self, path: str | Path, keep_seconds: float = 3600.0, most_bytes: int = 2**32) -> None:
        self.path = user_path(path)
        self.keep_seconds, self.most_bytes = keep_seconds, most_bytes
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"store={path} cannot be made ({error.strerror or error}): choose another.") from None

    def create(self, kind: str, options: Mapping[str, Any], uploads: Iterable[tuple[str, bytes]]) -> str:
        """Makes a job that is not accepted yet; returns its name.

        Args:
            kind: `object` or `scene`.
            uploads: (name inside the folder of inputs, content); the names are ours.

        Raises:
            UserError: it cannot be written.
        """
        name = secrets.token_hex(16)
        folder = self.path / name
        try:
            (folder / INPUTS).mkdir(parents=True)
            for own, data in uploads:
                target = folder / INPUTS / own
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(data)
            write_json(folder / JOB, {"kind": kind, "options": dict(options), "created": time.time()})
        except (OSError, UserError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _not_stored(error) from None
        return name

    def accept(self, name: str) -> None:
        """Accepts the job: from now on it will be computed, even if processes die.

        Raises:
            UserError: see `update`.
        """
        self.update(name, status=QUEUED)

    def folder(self, name: str) -> Path:
        """Returns the folder of a job.

        Raises:
            UserError: no such job.
        """
        if NAME.fullmatch(name) is None or not (self.path / name).is_dir():
            raise UserError(f"there is no job {name[:40]!r}: it never was, was deleted, or has expired.")
        return self.path / name

    def job(self, name: str) -> dict[str, Any]:
        """Reads kind, options and time of a job.

        Raises:
            UserError: no such job, or its description cannot be read.
        """
        found = _read(self.folder(name) / JOB)
        if not found:
            raise UserError(f"the job {name} is damaged: its file {JOB} cannot be read. Send the request again.")
        return found

    def state(self, name: str) -> State:
        """Reads status, progress and times of a job, and its files if it is done.

        Raises:
            UserError: no such job.
        """
        return _read(self.folder(name) / STATE) or {"status": QUEUED}

    def update(self, name: str, **values: Any) -> None:
        """Changes the state of a job. Does nothing if the job was deleted meanwhile.

        Raises:
            UserError: the state cannot be written, for example because the disk is full.
        """
        try:
            folder = self.folder(name)
        except UserError:
            return
        state = _read(folder / STATE) | {**values, "changed": time.time()}
        try:
            write_json(folder / STATE, state)
        except UserError as error:
            raise _not_stored(error) from None

    def result(self, name: str, file: str) -> Path:
        """Returns the path of a result of a job.

        Raises:
            UserError: no such job, or it has no such result.
        """
        files = self.state(name).get("files", {})
        if file not in files:
            raise UserError(f"the job has no file {file[:60]!r}. It has {', '.join(sorted(files)) or 'none'}.")
        return self.folder(name) / RESULTS / file

    def remove(self, name: str) -> None:
        """Removes a job that waits or has ended. A running job is stopped at its next step, then removed.

        Raises:
            UserError: no such job.
        """
        folder = self.folder(name)
        if self.state(name)["status"] == RUNNING:
            with suppress(OSError):  # it is gone already
                (folder / CANCEL).touch()
            # Its worker looks for the mark after it has written the end; if it has ended before the mark, we remove it.
            if _read(folder / STATE).get("status") == RUNNING:
                return
        discard(folder)

    def cancelled(self, name: str) -> bool:
        """Tells whether a job must be stopped."""
        folder = self.path / name
        return (folder / CANCEL).exists() or not folder.exists()

    def names(self) -> list[str]:
        """Lists all jobs that were accepted, the oldest first."""
        found = []
        for folder in self.path.iterdir():
            if NAME.fullmatch(folder.name) and (folder / STATE).is_file():
                found.append((_read(folder / JOB).get("created", 0.0), folder.name))
        return [name for _, name in sorted(found)]

    def waiting(self) -> list[str]:
        """Lists the jobs that were accepted and have not ended, the oldest first."""
        return [name for name in self.names() if _read(self.path / name / STATE).get("status") in WAITING]

    def expire(self) -> list[str]:
        """Removes jobs that are too old, and the oldest ones if the store is too large; returns their names.

        Keeps jobs that wait or run, and uploads of the last minutes that are not accepted yet.
        """
        now, removed, kept = time.time(), [], []
        for folder in sorted(self.path.iterdir()):
            if NAME.fullmatch(folder.name) is None:
                continue
            state = _read(folder / STATE)
            if state.get("status") in WAITING:
                continue
            # A process that was killed while it received an upload has written no job.
            times = (state.get("changed"), _read(folder / JOB).get("created"), _changed(folder, now))
            age = now - next(each for each in times if each is not None)
            ended = state.get("status") in ENDED
            if age > (self.keep_seconds if ended else min(self.keep_seconds, UPLOAD_SECONDS)):
                removed.append(folder)
            elif ended:
                kept.append((now - age, folder))
        total = self.used()[1] - sum(map(_size, removed))
        for _, folder in sorted(kept):
            if total <= self.most_bytes:
                break
            total -= _size(folder)
            removed.append(folder)
        for folder in removed:
            discard(folder)
        for folder in self.path.glob(f"{DISCARDED}*"):  # of a process that was killed while it removed them
            shutil.rmtree(folder, ignore_errors=True)
        return [folder.name for folder in removed]

    def used(self) -> tuple[int, int]:
        """Counts (jobs, bytes) of the store."""
        folders = [folder for folder in self.path.iterdir() if NAME.fullmatch(folder.name)]
        return len(folders), sum(map(_size, folders))


def discard(folder: Path) -> None:
    """Removes the folder of a job. It gets another name first, so that no process finds a part of a job meanwhile."""
    renamed = folder.with_name(f"{DISCARDED}{secrets.token_hex(8)}")
    with suppress(OSError):
        folder = folder.rename(renamed)
    shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    except (OSError, ValueError):
        return {}


def _not_stored(error: Exception) -> UserError:
    """The error for clients: the reason of the system, without a path of this machine."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return UserError(f"the service cannot store the job ({getattr(cause, 'strerror', None) or type(cause).__name__}).")


def _changed(folder: Path, otherwise: float) -> float:
    """Time of the last change of a folder; another value if it is gone."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return otherwise


def _size(folder: Path) -> int:
    """Bytes in a folder. What is removed meanwhile counts as nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(root, name)).st_size
    return total
