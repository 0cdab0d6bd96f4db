"""Errors that are the user's to mend: bad input, missing weights, a place that cannot be written to."""

from __future__ import annotations


class UserError(Exception):
    """Something that the caller can put right.

    The message is one or two sentences: what is wrong, where, and the way out. Command lines print it without
    a traceback. Errors of any other class are defects of the library.
    """
