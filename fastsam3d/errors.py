"""What the library raises on purpose; errors of any other class are its defects.

`UserError` is the user's to mend: bad input, missing weights, a place that cannot be written to.
"""

from __future__ import annotations


class UserError(Exception):
    """Something that the caller can put right.

    The message is one or two sentences: what is wrong, where, and the way out. Command lines print it without
    a traceback.
    """


class OneAtATime(Exception):
    """Objects cannot be sampled in one batch under what is attached; whoever asked runs them one by one.

    A signal between the parts of the library and no error of anybody's: scenes catch it.
    """
