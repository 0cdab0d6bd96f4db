"""METEOR through the package pycocoevalcap, which starts a program in Java."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Sequence

from fastsam3d.mllm.benchmarks.metrics.captions import Words

logger = logging.getLogger(__name__)


def meteor(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float | None:
    """METEOR 1.5 (Denkowski and Lavie, 2014) of the whole corpus, 0..1; None where it cannot be computed.

    It needs the package pycocoevalcap, with its jar file, and Java. If the program fails, a warning is logged and the
    result is None. Other packages have other parameters and give other numbers, so they are not used instead.

    Args:
        captions, references: as for `captions.bleu`.
    """
    if importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None:
        return None
    from pycocoevalcap.meteor.meteor import Meteor

    generated = {number: [" ".join(words)] for number, words in enumerate(captions)}
    targets = {number: [" ".join(words) for words in of_one] for number, of_one in enumerate(references)}
    scorer = Meteor()
    try:
        score, _ = scorer.compute_score(targets, generated)
    except (OSError, ValueError) as error:
        # After an error the package keeps its lock, and would wait for it when the scorer is thrown away.
        if scorer.lock.locked():
            scorer.lock.release()
        logger.warning("METEOR is left out: its program in Java did not run (%s)", error)
        return None
    return float(score)
