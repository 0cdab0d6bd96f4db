"""Receivers of a job's messages, such as the console, a page or a worker's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    """Receives messages of a running job. Called from its thread, or one call at a time from several of its threads."""

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Tells the current work; if it has steps, `done` of `total` are done."""

    def warn(self, text: str) -> None:
        """Tells the user something that matters for the result."""

    def note(self, text: str) -> None:
        """Tells the user something that does not change the result."""


class Silent:
    """A listener that ignores everything."""

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Ignores a step."""

    def warn(self, text: str) -> None:
        """Ignores a warning. The report of the job has it anyway."""

    def note(self, text: str) -> None:
        """Ignores a note."""


SILENT = Silent()


class ReportedWarnings:
    """A listener that passes everything on to another one, and keeps the warnings, each once, for the report.

    Args:
        listener: the other listener.
    """

    def __init__(self, listener: Listener = SILENT) -> None:
        self.warnings: list[str] = []
        self._listener = listener

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Passes a step on."""
        self._listener.step(text, done, total)

    def warn(self, text: str) -> None:
        """Passes a warning on, unless it was given before, and keeps it."""
        self._warn(text)

    def note(self, text: str) -> None:
        """Passes a note on."""
        self._listener.note(text)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Turns the library's log warnings into warnings of this listener, inside a `with` block."""
        logger = logging.getLogger("fastsam3d")
        handler = _Handler(self)
        propagate = logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate

    def _warn(self, text: str, traceback: str = "") -> None:
        known = text in self.warnings
        if not known:
            self.warnings.append(text)
        if not known or traceback:
            # The log gets the traceback, to find a defect of the library. The report is for users and does not get it.
            self._listener.warn(f"{text}\n{traceback}" if traceback else text)


class _Handler(logging.Handler):
    def __init__(self, listener: ReportedWarnings) -> None:
        super().__init__(logging.WARNING)
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        traceback = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        self._listener._warn(record.getMessage(), traceback)
