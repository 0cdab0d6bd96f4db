"""Keeps one session for each visitor of the page."""

from __future__ import annotations

import threading

from fastsam3d.app.visitors.shared import Studio
from fastsam3d.app.visitors.visitor import Session


class Visitors:
    """The sessions by visitor. If there are too many, the session that was idle longest is removed.

    Sessions with a result and sessions without one are counted separately. So many requests with new names can remove
    only one another, and no visitor's result.

    Args:
        studio: the objects that they share.
        limit: largest number of sessions of each kind.
    """

    def __init__(self, studio: Studio, limit: int = 32) -> None:
        self.studio, self._limit = studio, limit
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def session(self, key: str) -> Session:
        """Returns the session of a visitor. The first call makes it."""
        with self._lock:
            # Moved to the end, because the order of the dictionary is the order of the last use.
            session = self._sessions.pop(key, None) or Session(self.studio)
            self._sessions[key] = session
            gone = [self._sessions.pop(name) for name in self._surplus(key)]
        for item in gone:
            item.close()
        return session

    def _surplus(self, newest: str) -> list[str]:
        """Returns the names of the sessions to remove: of each kind those idle longest, but never the newest one."""
        names: list[str] = []
        for has_result in (False, True):
            kind = [name for name, item in self._sessions.items() if (item.finished is not None) is has_result]
            idle = [name for name in kind if (job := self._sessions[name].job) is None or job.ended]
            names += [name for name in idle if name != newest][: max(0, len(kind) - self._limit)]
        return names

    def leave(self, key: str) -> None:
        """Stops the run of a visitor who has closed the page, and removes their files."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.close()
