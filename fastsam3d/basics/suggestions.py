"""Way out of a mistyped word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(given: str, known: Iterable[str], listed: int = 12) -> str:
    """ " Did you mean ...?" with close matches, else the known words, at most `listed` of them."""
    names = list(known)
    close = difflib.get_close_matches(given, names, n=3, cutoff=0.6)
    # A dotted key is often remembered by its last part alone.
    close += [name for name in names if name.rpartition(".")[2] == given and name not in close]
    if close:
        return f"Did you mean {' or '.join(close[:4])}?"
    more = f" and {len(names) - listed} more" if len(names) > listed else ""
    return f"Known: {', '.join(names[:listed])}{more}."


def _closest(given: str, known: Iterable[str], prefix: str = "") -> str:
    known = list(known)
    close = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    listed = ", ".join(prefix + name for name in (close or known))
    return f": did you mean {listed}?" if close else f": known are {listed}."
