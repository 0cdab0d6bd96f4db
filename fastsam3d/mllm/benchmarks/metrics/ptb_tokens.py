"""Splits captions into words as caption metrics expect them: lower case, Penn Treebank style, without punctuation.

Published numbers use the tokeniser of Stanford CoreNLP through the package pycocoevalcap, which starts Java. This
module has a small tokeniser of its own, written from the public rules of the Penn Treebank and from outputs of that
program. The two agree on ordinary descriptions of rooms. They may differ on rare abbreviations, web addresses, and
characters of other languages.
"""

from __future__ import annotations

import re

PUNCTUATION = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", ";", "-", '"'})
"""Tokens that are left out. Round brackets stay, as `-lrb-` and `-rrb-`."""
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_REPLACED = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": ".", "½": "1/2"})
_SPLIT = {
    "cannot": "can not",
    "gonna": "gon na",
    "wanna": "wan na",
    "gotta": "got ta",
    "lemme": "lem me",
    "gimme": "gim me",
}
"""Words that the Penn Treebank writes as two."""
_ABBREVIATIONS = "dr|mr|mrs|ms|prof|st|vs|etc|jr|sr|inc|co|corp|ltd|ave|blvd|rd|ft"
"""Words that keep the full stop after them."""
_BEFORE_NUMBERS = "no|fig"
"""Words that keep the full stop only before a number."""
_ALNUM = r"[^\W_]"
_LETTER = r"[^\W\d_]"
_TOKEN = re.compile(
    rf"""
      </?{_LETTER}[^<>\s]*>                                       # a tag, such as <obj001>
    | (?<!{_ALNUM})(?:{_LETTER}\.)+(?!{_ALNUM})                   # single letters with full stops, such as p.m.
    | (?<!{_ALNUM})(?:{_ABBREVIATIONS})\.(?!{_ALNUM})
    | (?<!{_ALNUM})(?:{_BEFORE_NUMBERS})\.(?=\s?\d)
    | n't(?!{_ALNUM})
    | '(?:s|m|d|ll|re|ve)(?!{_ALNUM})                             # the short form of a verb, or a possessive
    | '\d0s(?!{_ALNUM})                                           # a decade
    | \d+(?:[.,]\d+)+(?:-{_LETTER}{_ALNUM}*)+                     # 12.5-inch
    | \d+(?:[.,:]\d+)+(?={_LETTER})                              # the number of 10:30am
    | (?:(?<!{_ALNUM})[-+])?(?:(?<!\d)[.,])?\d+(?:[.,:/-]\d+)*(?!{_ALNUM}|[-/]{_ALNUM})
    | {_ALNUM}+?(?=n't(?!{_ALNUM}))                               # what stands before n't
    | (?<!{_ALNUM})(?:[odl]'{_LETTER}{{2,}}|ma'am)                # o'clock, o'neil
    | {_ALNUM}+(?:[-_/?!]{_ALNUM}+|\.{_LETTER}+)*
    | [@\#]{_LETTER}{_ALNUM}*
    | \.{{2,}} | -+ | [!?]+ | _+ | \*+ | \#+ | '' | ``
    | \S
    """,
    re.VERBOSE,
)


def ptb_tokens(text: str) -> list[str]:
    """The words of a text, in lower case.

    "It's a TV-stand (brown)!" gives `it 's a tv-stand -lrb- brown -rrb-`.
    """
    found = _TOKEN.findall(text.translate(_REPLACED).lower())
    words = [_SPLIT.get(token, _BRACKETS.get(token, token)) for token in found if not _is_punctuation(token)]
    return " ".join(words).split()


def _is_punctuation(token: str) -> bool:
    return token in PUNCTUATION or not token.strip(".") or not token.strip("-")
