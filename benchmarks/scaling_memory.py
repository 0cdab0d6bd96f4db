"""Memory of processes over time, for `scaling.py`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

OWN = "this process"


class Memory:
    """Samples the resident memory of processes once a second inside a `with` block.

    Args:
        titles: command lines of other processes begin so. Processes with one title count together.
    """

    def __init__(self, titles: Iterable[str] = ()) -> None:
        self.samples: dict[str, list[tuple[float, float]]] = {OWN: []}
        """(seconds since the beginning, MiB) by title."""
        self._titles = tuple(titles)
        self._start, self._ended = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def growth(self, title: str, start: float, end: float = float("inf")) -> float:
        """MiB between the memory at a moment and the largest until another one."""
        found = [mib for seconds, mib in self.samples.get(title, []) if start <= seconds <= end]
        return max(found) - found[0] if found else float("nan")

    def since(self, moment: float) -> float:
        """Seconds from the beginning until a moment of `time.monotonic`."""
        return moment - self._start

    def _work(self) -> None:
        while not self._ended.wait(1.0):
            now = time.monotonic() - self._start
            for title, mib in self._sampled().items():
                self.samples.setdefault(title, []).append((now, mib))

    def _sampled(self) -> dict[str, float]:
        found = {OWN: _resident(os.getpid())}
        for process in processes(self._titles) if self._titles else ():
            title = next(title for title in self._titles if process[1].startswith(title))
            found[title] = found.get(title, 0.0) + _resident(process[0])
        return found


def processes(titles: tuple[str, ...]) -> list[tuple[int, str]]:
    """(process, command line) of the processes below this one whose command line begins with one of the titles."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            text = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if text.startswith(titles):
            found.append((int(folder.name), text))
    return [(process, text) for process, text in found if _is_below(process, parents)]


def _is_below(process: int, parents: dict[int, int]) -> bool:
    """Tells whether this process has started another one, or one that started it."""
    while process > 1 and process != os.getpid():
        process = parents.get(process, 0)
    return process > 1


def _resident(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
