"""Turns words into token numbers and back, for the small 3D language model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from string import Formatter

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError
from fastsam3d.mllm.scenes import wording
from fastsam3d.mllm.scenes.rooms import IDENTIFIERS
from fastsam3d.mllm.scenes.vocabulary import CLASSES, COLOURS, DIRECTIONS, FACINGS, SIZES

PADDING, BEGIN, END, SCENE, USER, ASSISTANT = range(6)
_SPECIAL = ("<pad>", "<s>", "</s>", "scene:", "user:", "assistant:")
_ANSWER_WORDS = "yes no and a at the front back left right"
_SYNONYMS = {"color": "colour", "colours": "colour", "what's": "what is", "where's": "where is", "i'm": "i am"}


@cache
def words() -> tuple[str, ...]:
    """All tokens, in the order of their numbers. The identifiers of objects come last."""
    plurals = {c.plural: c.name for c in CLASSES}
    forms = [wording.UNIQUE, wording.RELATION, wording.NEAREST, wording.MULTI, wording.DESCRIBE, wording.COLOUR]
    forms += [
        wording.EXISTS,
        wording.COUNT,
        wording.SITUATED,
        wording.SITUATED_FACING_NORTH,
        tuple(wording.SIDES.values()),
        tuple(wording.MY_SIDES.values()),
        wording.NUMBERS,
    ]
    literal = " ".join(text for form in forms for line in form for text, *_ in Formatter().parse(line))
    names = [c.name for c in CLASSES] + [*COLOURS, *SIZES, *DIRECTIONS, *FACINGS]
    known = sorted({*literal.split(), *_ANSWER_WORDS.split(), *names} - plurals.keys())
    return (*_SPECIAL, *known, *map(wording.identifier, range(IDENTIFIERS)))


@cache
def _numbers() -> dict[str, int]:
    numbers = {word: number for number, word in enumerate(words())}
    return numbers | {c.plural: numbers[c.name] for c in CLASSES}


def number_of(word: str) -> int:
    """The number of a word. A plural has the number of its singular.

    Raises:
        KeyError: the word is unknown.
    """
    return _numbers()[word]


def first_identifier() -> int:
    """The number of `<OBJ000>`. The numbers of the other identifiers follow."""
    return len(words()) - IDENTIFIERS


def encode(text: str) -> list[int]:
    """Turns a text into token numbers. Case and punctuation do not matter.

    Raises:
        UserError: a word is unknown.
    """
    plain = re.sub(r"[?!.,;:\"]", " ", text)
    split = re.sub(r"(<obj\d{3}>)", r" \1 ", plain.lower()).split()
    known, numbers = [], _numbers()
    for word in " ".join(_SYNONYMS.get(word, word) for word in split).split():
        word = word.upper() if word.startswith("<obj") else word
        if word not in numbers or numbers[word] < len(_SPECIAL):
            close = suggestion(word, [*words()[len(_SPECIAL) : first_identifier()]], listed=200)
            raise UserError(f"the small language model does not know the word {word!r}. {close}")
        known.append(numbers[word])
    return known


def decode(tokens: Iterable[int]) -> str:
    """Turns token numbers into words, up to the token that ends an answer."""
    said = []
    for token in tokens:
        if token == END:
            break
        said.append(words()[token])
    return " ".join(said)
