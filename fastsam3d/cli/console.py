"""Writes messages of the command line: results to stdout by `say`, all else to stderr by `Console`."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

DELAY = 1.5
"""Seconds that work goes on before progress is shown: short work stays silent."""
TICK = 0.25
LINE_EVERY = 10.0
"""Seconds between lines of progress where stderr is no terminal."""
STEPS, NO_STEPS = "{desc:<28} |{bar:24}| {n_fmt}/{total_fmt} [{elapsed}]", "{desc:<28} [{elapsed}]"


def say(text: str) -> None:
    """Writes to stdout; signs that a terminal cannot show are replaced."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


class ShownWarnings(logging.Handler):
    """Shows the warnings of this library's log on stderr while a command runs. A context manager."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Shows one line, once."""
        text = record.getMessage()
        if text not in self._seen:
            self._seen.add(text)
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> ShownWarnings:
        logging.getLogger("fastsam3d").addHandler(self)
        return self

    def __exit__(self, *_error: object) -> None:
        logging.getLogger("fastsam3d").removeHandler(self)


class Console:
    """Writes to stderr for one command: the listener of its job (`fastsam3d.jobs.listener`).

    Args:
        quiet: no notes and no progress; warnings are always shown.
        stream: default stderr, looked up at the time of writing.
    """

    def __init__(self, quiet: bool = False, stream: IO[str] | None = None) -> None:
        self.quiet = quiet
        self._stream = stream
        self._progress: ProgressBar | None = None

    @property
    def stream(self) -> IO[str]:
        """The stream that it writes to."""
        return self._stream or sys.stderr

    def warn(self, text: str) -> None:
        """Shows a warning."""
        self._line(f"warning: {text}")

    def note(self, text: str) -> None:
        """Shows a line unless quiet."""
        if not self.quiet:
            self._line(text)

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Takes the current work for the progress bar; without steps the bar shows the time alone."""
        if self._progress is not None:
            self._progress.step(text, done or 0, total or 1)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Shows progress inside a `with` block, once work has gone on for a while."""
        if self.quiet:
            yield
            return
        self._progress = ProgressBar(self.stream)
        try:
            yield
        finally:
            self._progress.close()
            self._progress = None

    def _line(self, text: str) -> None:
        if self._progress is not None:
            self._progress.clear()
        print(text, file=self.stream, flush=True)


class ProgressBar:
    """Progress bar with a thread of its own, so that a long stage without steps shows the time going by."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._terminal = bool(getattr(stream, "isatty", lambda: False)())
        self._lock = threading.Lock()
        self._what, self._done, self._total = "starting", 0, 1
        self._start = time.monotonic()
        self._next_line = self._start + LINE_EVERY
        self._bar: Any = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")
        self._thread.start()

    def step(self, what: str, done: int, total: int) -> None:
        """Sets what is shown at the next tick."""
        with self._lock:
            self._what, self._done, self._total = what, done, max(total, 1)

    def clear(self) -> None:
        """Takes the bar off the terminal's line until the next tick."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()

    def close(self) -> None:
        """Ends the thread and removes the bar."""
        self._stop.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()

    def tick(self) -> None:
        """Shows the progress, once the work has gone on for a while. The thread calls it again and again."""
        if time.monotonic() - self._start >= DELAY:
            with self._lock:
                self._show()

    def _run(self) -> None:
        while not self._stop.wait(TICK):
            self.tick()

    def _show(self) -> None:
        if not self._terminal:
            now = time.monotonic()
            if now >= self._next_line:
                self._next_line = now + LINE_EVERY
                steps = f" {self._done}/{self._total}" if self._total > 1 else ""
                print(f"{self._what}{steps} ({now - self._start:.0f} s)", file=self._stream, flush=True)
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, file=self._stream, desc=self._what, bar_format=STEPS)
            self._bar.start_t -= time.monotonic() - self._start
        self._bar.total, self._bar.n = self._total, self._done
        self._bar.bar_format = STEPS if self._total > 1 else NO_STEPS
        self._bar.set_description_str(self._what, refresh=True)
