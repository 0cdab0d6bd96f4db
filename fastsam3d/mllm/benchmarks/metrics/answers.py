"""Short answers: brought to one way of writing, and compared with references.

The rules are those of the public evaluation of LEO and Chat-Scene, artefacts included, because scores depend on them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TYPING_ERRORS = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "rigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
    "o' +clock": "o'clock",
}
_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_WORDS = (
    _TYPING_ERRORS
    | {str(number): word for number, word in enumerate(_NUMBERS)}
    | {"none": "zero", "23": "twenty-three"}
)
_REPLACEMENTS = [
    *((re.compile(rf"\b{word}\b"), replacement) for word, replacement in _WORDS.items()),
    (re.compile(r"\b([a-zA-Z]+)[0-9]\b"), r"\1"),  # a letter word with a number, such as no1
    *((re.compile(rf"\b{article} ([a-zA-Z]+)"), r"\1") for article in ("a", "an", "the")),
    (re.compile(r"\bbackwards\b"), "backward"),
]


def clean_answer(text: str) -> str:
    """Brings an answer to one way of writing.

    Lower case; single blanks; no signs but commas, apostrophes, hyphens and colons; some typing errors of the data sets
    mended; small numbers as words; no article in front of a word. "TV" alone is in capitals, as in the public code.
    """
    text = re.sub(" {2,}", " ", text.lower().strip(" "))
    text = re.sub(r"[^a-z0-9,'\s:-]+", "", text)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text


def final_answer(text: str) -> str:
    """A generated answer without the full stop and the capital letter of its sentence, cleaned."""
    if len(text) > 1:
        text = text.removesuffix(".")
        text = text[0].lower() + text[1:]
    return clean_answer(text)


def exact_match(answer: str, references: Sequence[str]) -> tuple[int, int]:
    """Whether an answer is right: exactly, and in the refined way that is called EM-R.

    Refined, one text may be a part of the other, blanks left out. That is how "no" matches "north wall": an artefact of
    the published metric, which is kept. An empty answer is wrong in both ways.
    """
    if not answer:
        return 0, 0
    if answer in references:
        return 1, 1
    joined = "".join(answer.split())
    others = ["".join(reference.split()) for reference in references]
    return 0, int(any(joined in other or other in joined for other in others))
