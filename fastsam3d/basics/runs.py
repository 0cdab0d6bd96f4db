"""Counts the runs of a pipeline, so that nothing is attached or removed in the middle of one.

It also refuses runs that would wait forever: runs in a process that was forked after its parent had computed.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from fastsam3d.errors import UserError

Method = TypeVar("Method", bound=Callable[..., Any])


class Runs:
    """The runs of one pipeline or model, in all threads.

    Every run is inside `with runs:`, and so is every part of a run that can be called alone. It may be nested. Runs
    wait for a change that has begun (`changing`), and a change waits for the runs of other threads.

    Attributes:
        one_at_a_time: runs of several threads are done one after the other. Only a change may set it.
    """

    def __init__(self) -> None:
        self.one_at_a_time = False
        self._begin()

    def _begin(self) -> None:
        self._state, self._turn = threading.Condition(), threading.RLock()
        # By thread: for each of its nested runs, whether it holds the lock `_turn`.
        self._inside: dict[int, list[bool]] = {}
        self._changing: int | None = None
        self._process = os.getpid()

    def _look_for_fork(self, thread: int) -> None:
        """Resets the counts in a forked process, which does not have the other threads of its parent."""
        if self._process != os.getpid():
            with _LOCK:
                if self._process != os.getpid() and thread not in self._inside:
                    self._begin()

    def __enter__(self) -> Runs:
        begin_computing()
        own = threading.get_ident()
        self._look_for_fork(own)
        with self._state:
            if own not in self._inside and self._changing != own:
                self._state.wait_for(lambda: self._changing is None)
            takes_turn = self.one_at_a_time
            self._inside.setdefault(own, []).append(takes_turn)
        if takes_turn:
            try:
                self._turn.acquire()
            except BaseException:  # Ctrl-C while it waits
                self._leave(own)
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        own = threading.get_ident()
        if self._inside[own][-1]:
            self._turn.release()
        self._leave(own)

    def _leave(self, thread: int) -> None:
        with self._state:
            self._inside[thread].pop()
            if not self._inside[thread]:
                del self._inside[thread]
                self._state.notify_all()

    @contextmanager
    def changing(self, what: str) -> Iterator[None]:
        """Makes a change possible inside it: no run of another thread is in progress, and none begins.

        Args:
            what: the change, as the subject of a sentence in the message.

        Raises:
            UserError: this thread is in the middle of a run, for instance in its progress callback.
        """
        own = threading.get_ident()
        self._look_for_fork(own)
        with self._state:
            if own in self._inside:
                raise UserError(
                    f"{what} is not possible in the middle of a run of the same pipeline, as in a progress callback: "
                    "the result would be a mixture. Do it after the run has ended."
                )
            outer = self._changing == own
            if not outer:
                self._state.wait_for(lambda: self._changing is None)
                self._changing = own
                try:
                    self._state.wait_for(lambda: not self._inside)
                except BaseException:  # Ctrl-C while it waits
                    self._changed()
                    raise
        try:
            yield
        finally:
            if not outer:
                with self._state:
                    self._changed()

    def _changed(self) -> None:
        self._changing = None
        self._state.notify_all()

    def __deepcopy__(self, memo: dict[int, Any]) -> Runs:
        return Runs()

    def __reduce__(self) -> Any:
        return Runs, ()


_ATTRIBUTE = "_fastsam3d_runs"
_KNOWN: dict[int, Runs] = {}
_LOCK = threading.Lock()


def runs_of(model: Any) -> Runs:
    """Returns the runs of a pipeline or model: its attribute `runs`, or else an object that is kept for it here.

    Only a pipeline with the attribute, such as the native one, counts its plain runs. Others do not count them.
    """
    attributes = getattr(model, "__dict__", {})
    own = attributes.get("runs", attributes.get(_ATTRIBUTE))
    if isinstance(own, Runs):
        return own
    with _LOCK:
        if id(model) not in _KNOWN:
            try:
                weakref.finalize(model, _KNOWN.pop, id(model), None).atexit = False
            except TypeError:  # it has no weak references, so it keeps the object itself
                return attributes.setdefault(_ATTRIBUTE, Runs())
            _KNOWN[id(model)] = Runs()
        return _KNOWN[id(model)]


def counted(method: Method) -> Method:
    """Decorates a method of a class with the attribute `runs: Runs`: calls count as runs."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.runs:
            return method(self, *args, **kwargs)

    return cast(Method, call)


class _Process:
    has_computed = False
    """True after a pipeline was built or run in this process, which started threads of OpenMP."""
    is_orphan = False
    """True if the process was forked after that: OpenMP then waits for threads that it does not have."""


def begin_computing() -> None:
    """Notes that this process is about to build or run a pipeline.

    Raises:
        UserError: it was forked from a process that had done so, and would wait forever.
    """
    _Process.has_computed = True
    if not _Process.is_orphan:
        return
    import torch

    if torch.get_num_threads() > 1:
        raise UserError(
            "this process was forked from one that had built or run a pipeline already, and its first operation on "
            "several threads would wait forever for threads that exist in the parent only. Start workers with "
            'multiprocessing.get_context("spawn"), fork before a pipeline is built, or call torch.set_num_threads(1) '
            "in the worker."
        )


def _forked() -> None:
    _Process.is_orphan = _Process.is_orphan or _Process.has_computed
    _Process.has_computed = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
