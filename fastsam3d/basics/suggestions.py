"""Suggests ways out of a mistyped word: close matches, or the words that are known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(given: str, known: Iterable[str], listed: int = 12) -> str:
    """Returns a sentence: "Did you mean ...?" with close matches, else "Known: ..." with up to `listed` words."""
    names = list(known)
    close = difflib.get_close_matches(given, names, n=3, cutoff=0.6)
    # People often remember only the last part of a dotted key.
    close += [name for name in names if name.rpartition(".")[2] == given and name not in close]
    if close:
        return f"Did you mean {' or '.join(close[:4])}?"
    more = f" and {len(names) - listed} more" if len(names) > listed else ""
    return f"Known: {', '.join(names[:listed])}{more}."


def suggested_ending(given: str, known: Iterable[str], prefix: str = "") -> str:
    """Returns the end of a sentence: ": did you mean ...?" with close matches, else ": known are ..." with all words.

    Args:
        prefix: written before every known word.
    """
    names = list(known)
    close = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    listed = ", ".join(prefix + name for name in (close or names))
    return f": did you mean {listed}?" if close else f": known are {listed}."
