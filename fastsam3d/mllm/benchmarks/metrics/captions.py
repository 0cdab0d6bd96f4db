"""Caption metrics over words: BLEU, ROUGE-L and CIDEr, with the constants of the COCO caption evaluation.

Each function takes a list of generated captions, and a list of references for each caption. Captions and references are
lists of words, from `ptb_tokens`. Constants and details follow the public package pycocoevalcap 1.2, so that scores can
be compared with published ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Words = Sequence[str]
LARGEST_N = 4
"""Number of words in the longest n-grams."""
_TINY, _SMALL = 1e-15, 1e-9
_BETA = 1.2
"""Weight of recall against precision in ROUGE-L."""
_SIGMA = 6.0
"""Standard deviation, in words, of the Gaussian length penalty of CIDEr-D."""


def n_grams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    """Counts how often each sequence of n words occurs."""
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def bleu(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the whole corpus (Papineni et al., ACL 2002, equations 1 to 3), each 0..1.

    The reference length of a caption is the nearest length among its references; of two equally near, the shorter.
    """
    matched, possible = [0] * LARGEST_N, [0] * LARGEST_N
    length = reference_length = 0
    for caption, targets in zip(captions, references, strict=True):
        length += len(caption)
        reference_length += min((abs(len(target) - len(caption)), len(target)) for target in targets)[1]
        for n in range(1, LARGEST_N + 1):
            most: Counter[tuple[str, ...]] = Counter()
            for target in targets:
                most |= n_grams(target, n)
            matched[n - 1] += (n_grams(caption, n) & most).total()
            possible[n - 1] += max(len(caption) - n + 1, 0)
    ratio = (length + _TINY) / (reference_length + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for n in range(1, LARGEST_N + 1):
        product *= (matched[n - 1] + _TINY) / (possible[n - 1] + _SMALL)
        scores.append(brevity * product ** (1 / n))
    return scores


def rouge_l(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """ROUGE-L (Lin, 2004, section 3.1): mean over the captions, 0..1.

    The best precision and the best recall are taken over the references separately. A text without words counts as one
    empty word, as in the public code.
    """
    total = 0.0
    for caption, targets in zip(captions, references, strict=True):
        words = caption or [""]
        common = [(_longest_common(target or [""], words), len(target or [""])) for target in targets]
        precision = max(shared / len(words) for shared, _ in common)
        recall = max(shared / length for shared, length in common)
        if precision and recall:
            total += (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
    return total / len(captions)


def _longest_common(first: Words, second: Words) -> int:
    """Words of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, start=1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]


def cider(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """CIDEr-D (Vedantam et al., CVPR 2015, section 4): mean over the captions, 0..10.

    Published tables show it times 100.
    """
    return sum(cider_of_each(captions, references)) / len(captions)


def cider_of_each(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """CIDEr-D of every caption, 0..10.

    Rare n-grams count more. How rare an n-gram is depends on all references that are given here, so the score of a
    single caption is 0. The Gaussian penalty compares numbers of word pairs as lengths, as in the public code.
    """
    rarity: Counter[tuple[str, ...]] = Counter()
    for targets in references:
        rarity.update({gram for target in targets for n in range(1, LARGEST_N + 1) for gram in n_grams(target, n)})
    documents = math.log(len(references))

    def weighted(words: Words, n: int) -> dict[tuple[str, ...], float]:
        return {gram: count * (documents - math.log(max(1, rarity[gram]))) for gram, count in n_grams(words, n).items()}

    values = []
    for caption, targets in zip(captions, references, strict=True):
        own = [weighted(caption, n) for n in range(1, LARGEST_N + 1)]
        similarity = 0.0
        for target in targets:
            difference = max(len(caption) - 1, 0) - max(len(target) - 1, 0)
            penalty = math.exp(-(difference**2) / (2 * _SIGMA**2))
            other = [weighted(target, n) for n in range(1, LARGEST_N + 1)]
            similarity += penalty * sum(map(_clipped_cosine, own, other)) / LARGEST_N
        values.append(10 * similarity / len(targets))
    return values


def _clipped_cosine(caption: dict[tuple[str, ...], float], reference: dict[tuple[str, ...], float]) -> float:
    """Cosine of two vectors, in whose product the caption's values are cut at the reference's."""
    shared = caption.keys() & reference.keys()
    product = sum(min(caption[gram], reference[gram]) * reference[gram] for gram in shared)
    norms = [math.sqrt(sum(value**2 for value in vector.values())) for vector in (caption, reference)]
    return product / (norms[0] * norms[1]) if norms[0] and norms[1] else product
