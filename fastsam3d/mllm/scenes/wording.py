"""Sentences of questions and answers. Most kinds of questions have several forms, so that no single form is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

UNIQUE = (
    "find the {name}",
    "the {name}",
    "which object is the {name}",
    "where is the {name}",
    "give the id of the {name}",
)
RELATION = (
    "find the {name} {side} the {anchor}",
    "the {name} {side} the {anchor}",
    "which {name} is {side} the {anchor}",
    "give the id of the {name} {side} the {anchor}",
)
NEAREST = (
    "find the {name} beside the {anchor}",
    "the {name} beside the {anchor}",
    "the {name} next to the {anchor}",
    "the {name} closest to the {anchor}",
    "which {name} is closest to the {anchor}",
    "give the id of the {name} nearest to the {anchor}",
)
MULTI = ("find all {names}", "all {names}", "which objects are {names}", "give the ids of all {names}")
DESCRIBE = ("describe {identifier}", "what is {identifier}", "tell me about {identifier}")
COLOUR = ("what colour is the {name}", "what is the colour of the {name}")
EXISTS = ("is there a {name}", "is a {name} in the room", "do you see a {name}")
COUNT = ("how many {names} are there", "count the {names}", "how many {names} do you see")
SITUATED = (
    "i stand at the {here} and face {facing} what colour is the {name} {side}",
    "i am at the {here} facing {facing} what is the colour of the {name} {side}",
)
SITUATED_FACING_NORTH = ("i stand at the {here} what colour is the {name} {side}",)
"""Where no direction is said, the person faces north."""
MY_SIDES = {"left": "on my left", "right": "on my right", "front": "in front of me", "behind": "behind me"}
"""Where an object is, for a person who stands in the room."""

SIDES = {"left": "left of", "right": "right of", "front": "in front of", "behind": "behind"}
"""Where an object is from another object, as seen from the south of the room."""
NUMBERS = ("zero", "one", "two", "three", "four")
NO_OBJECT = "no"


def identifier(number: int) -> str:
    """The identifier of an object in words, such as "<OBJ012>"."""
    return f"<OBJ{int(number):03d}>"


def listed(names: Sequence[str]) -> str:
    """A list in words: "no", "yes a", "yes a and b", "yes a b and c"."""
    if not names:
        return NO_OBJECT
    *first, last = names
    return " ".join(["yes", *first, *(["and"] if first else []), last])


def choose(forms: Sequence[str], rng: np.random.Generator, **parts: Any) -> str:
    """Draws one of several forms, and fills in its parts."""
    return forms[int(rng.integers(len(forms)))].format(**parts)
