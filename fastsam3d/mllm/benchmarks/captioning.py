"""Scores descriptions of objects: Scan2Cap (Chen et al., CVPR 2021), and captions in general."""

from __future__ import annotations

from collections.abc import Sequence

from fastsam3d.mllm.benchmarks.annotations import Prediction
from fastsam3d.mllm.benchmarks.grounding import THRESHOLDS, Scores
from fastsam3d.mllm.benchmarks.metrics.captions import bleu, cider, rouge_l
from fastsam3d.mllm.benchmarks.metrics.meteor import meteor
from fastsam3d.mllm.benchmarks.metrics.ptb_tokens import ptb_tokens
from fastsam3d.mllm.benchmarks.references import References

BEGIN, END = "sos", "eos"
"""Words around every caption of Scan2Cap. They count as words, so even a missed object can get a score above 0."""


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]], with_meteor: bool = True) -> Scores:
    """Computes BLEU-1 to BLEU-4, ROUGE-L, CIDEr and METEOR of captions, each compared with its references.

    Args:
        captions: texts.
        references: for each caption, its reference texts.
        with_meteor: compute METEOR, which needs the package pycocoevalcap and starts Java.

    Returns:
        `bleu1` to `bleu4`, `rouge_l` and `meteor` 0..1, `cider` 0..10; `meteor` None where it cannot be computed.
    """
    words = [ptb_tokens(caption) for caption in captions]
    targets = [[ptb_tokens(text) for text in of_one] for of_one in references]
    scores: Scores = {f"bleu{n}": value for n, value in enumerate(bleu(words, targets), start=1)}
    scores["rouge_l"] = rouge_l(words, targets)
    scores["cider"] = cider(words, targets)
    scores["meteor"] = meteor(words, targets) if with_meteor else None
    return scores


def wrapped(caption: str) -> str:
    """Puts a caption between the words "sos" and "eos". They are not added twice: some files already have them."""
    words = caption.replace("\n", " ").split()
    inner = words[words[:1] == [BEGIN] : len(words) - (words[-1:] == [END])]
    return " ".join([BEGIN, *inner, END])


def score_scan2cap(predictions: Sequence[Prediction], references: References, with_meteor: bool = True) -> Scores:
    """Computes caption scores over all objects of the corpus.

    A caption counts if the IoU of the segmented object that it describes with the true object is at least the
    threshold. An object without such a caption gets an empty one. Of several captions of one object, the last counts.

    Args:
        predictions: captions with their questions.
        references: boxes and the corpus.
        with_meteor: as for `caption_scores`.

    Returns:
        The scores of `caption_scores` for both thresholds, such as `bleu4@0.5`; and `outside_corpus`, the number of
        captions of objects that the corpus does not have.
    """
    corpus = references.corpus or {}
    scores: Scores = {}
    texts = {
        (asked.scene, asked.object_id): prediction for prediction in predictions for asked in [prediction.annotation]
    }
    for threshold in THRESHOLDS:
        captions = []
        for scene, number in corpus:
            prediction = texts.get((scene, number))
            seen = prediction is not None and _overlap(prediction, references) >= threshold
            captions.append(wrapped(prediction.text if seen and prediction is not None else ""))
        targets = [[wrapped(text) for text in of_one] for of_one in corpus.values()]
        found = caption_scores(captions, targets, with_meteor)
        scores |= {f"{name}@{threshold}": value for name, value in found.items()}
    scores["outside_corpus"] = len(texts.keys() - corpus.keys())
    return scores


def _overlap(prediction: Prediction, references: References) -> float:
    asked = prediction.annotation
    assert asked.object_id is not None and asked.predicted_id is not None
    return references.overlap(asked.scene, asked.predicted_id, asked.object_id)
