"""Scores short answers to questions: ScanQA (Azuma et al., CVPR 2022) and SQA3D (Ma et al., ICLR 2023)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fastsam3d.mllm.benchmarks.annotations import QUESTION_TYPES, Prediction
from fastsam3d.mllm.benchmarks.captioning import caption_scores
from fastsam3d.mllm.benchmarks.grounding import Scores, mean
from fastsam3d.mllm.benchmarks.metrics.answers import clean_answer, exact_match, final_answer


def score_scanqa(predictions: Sequence[Prediction], with_meteor: bool = True) -> Scores:
    """Computes exact match, refined exact match, and caption scores of ScanQA.

    Answers are cleaned (`clean_answer`), and references are not, as in the release of Fast3D. Other evaluations clean
    both. Their numbers differ where a reference has an article or a digit.

    Args:
        predictions: answers with their questions.
        with_meteor: as for `caption_scores`.

    Returns:
        `em` and `em_refined`, 0..1, and the scores of `caption_scores`.
    """
    answers = [final_answer(prediction.text) for prediction in predictions]
    targets = [prediction.annotation.references for prediction in predictions]
    matches = [exact_match(answer, of_one) for answer, of_one in zip(answers, targets, strict=True)]
    scores: Scores = {
        "em": mean([exact for exact, _ in matches]),
        "em_refined": mean([refined for _, refined in matches]),
    }
    lines = [[text.replace("\n", " ").strip() for text in of_one] for of_one in targets]
    return scores | caption_scores(answers, lines, with_meteor)


def score_sqa3d(predictions: Sequence[Prediction]) -> Scores:
    """Computes exact match and refined exact match of SQA3D, over all questions and for each kind of question.

    Answers and references are cleaned (`clean_answer`).

    Returns:
        `em` and `em_refined`, 0..1, and `KIND_em` and `KIND_em_refined` for each of `QUESTION_TYPES`, such as
        `what_em`; None for a kind without questions.
    """
    exact: dict[str, list[float]] = defaultdict(list)
    refined: dict[str, list[float]] = defaultdict(list)
    for prediction in predictions:
        targets = [clean_answer(text) for text in prediction.annotation.references]
        match = exact_match(final_answer(prediction.text), targets)
        for group in ("", f"{prediction.annotation.kind}_"):
            exact[group].append(match[0])
            refined[group].append(match[1])
    groups = ["", *(f"{kind}_" for kind in QUESTION_TYPES)]
    return {f"{group}em": mean(exact[group]) for group in groups} | {
        f"{group}em_refined": mean(refined[group]) for group in groups
    }
