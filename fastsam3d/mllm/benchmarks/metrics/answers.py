"""Cleans short answers and compares them with references.

The rules are those of the public evaluation of LEO and Chat-Scene. Their mistakes are kept, because scores depend on
them.
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
    """Brings an answer into a normal form.

    Lower case; single blanks; no punctuation but commas, apostrophes, hyphens and colons; some typing errors of the
    data sets corrected; small numbers as words; no article before a word. Only "TV" is in capitals, as in the public
    code.
    """
    text = re.sub(" {2,}", " ", text.lower().strip(" "))
    text = re.sub(r"[^a-z0-9,'\s:-]+", "", text)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text


def final_answer(text: str) -> str:
    """Removes the full stop and the first capital letter of a generated answer, and cleans it (`clean_answer`)."""
    if len(text) > 1:
        text = text.removesuffix(".")
        text = text[0].lower() + text[1:]
    return clean_answer(text)


def exact_match(answer: str, references: Sequence[str]) -> tuple[int, int]:
    """Says whether an answer is right by exact match (EM), and by refined exact match (EM-R).

    For EM-R it is enough that one text is a part of the other, without blanks. So "no" matches "north wall": a weakness
    of the published metric, which is kept. An empty answer is wrong by both.

    Returns:
        0 or 1 for EM, and 0 or 1 for EM-R.
    """
    if not answer:
        return 0, 0
    if answer in references:
        return 1, 1
    joined = "".join(answer.split())
    others = ["".join(reference.split()) for reference in references]
    return 0, int(any(joined in other or other in joined for other in others))
