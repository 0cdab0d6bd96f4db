"""Receivers of a job's messages: the console, a page, a worker's log, or none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    """Receives messages of a running job. Called from its thread, or one call at a time from several of its threads."""

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Tells the current work; `done` of `total` steps of it, where it has steps."""

    def warn(self, text: str) -> None:
        """Tells the user something that matters for the result."""

    def note(self, text: str) -> None:
        """Tells the user something that changes nothing about the result."""


class Silent:
    """A listener that ignores everything."""

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Ignores a step."""

    def warn(self, text: str) -> None:
        """Ignores a warning; the report of the job holds it."""

    def note(self, text: str) -> None:
        """Ignores a note."""


SILENT = Silent()


class ReportedWarnings:
    """A listener that passes everything on to another one, and keeps the warnings, each once, for the report.

    Args:
        listener: who is told.
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
            # Somebody has to find a defect of the library, but the report is for users: it gets no traceback.
            self._listener.warn(f"{text}\n{traceback}" if traceback else text)


class _Handler(logging.Handler):
    def __init__(self, listener: ReportedWarnings) -> None:
        super().__init__(logging.WARNING)
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        traceback = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        self._listener._warn(record.getMessage(), traceback)
