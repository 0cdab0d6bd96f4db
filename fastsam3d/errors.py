"""Errors that the library raises on purpose; an error of any other class is a defect of the library.

`UserError` can be fixed by the user: bad input, missing weights, a place that cannot be written to.
"""

from __future__ import annotations


class UserError(Exception):
    """The caller can put this right.

    The message is one or two sentences: what is wrong, where, and the way out. Command lines print it without
    a traceback.
    """


class OneAtATime(Exception):
    """The attached techniques cannot sample several objects in one batch; the caller runs them one by one.

    A signal between the parts of the library and no error of anybody's: scenes catch it.
    """
