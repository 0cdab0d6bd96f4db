"""Ways out of mistyped words."""

from __future__ import annotations

from fastsam3d.basics.suggestions import suggested_ending, suggestion

WORDS = ("exact", "fast", "step.stride", "step.order")


def test_sentences():
    assert suggestion("exat", WORDS) == "Did you mean exact?"
    assert suggestion("stride", WORDS) == "Did you mean step.stride or step.order?"  # close, and the last part
    assert suggestion("order", ("fast", "slat.warmup.order")) == "Did you mean slat.warmup.order?"
    assert suggestion("zzz", WORDS, 2) == "Known: exact, fast and 2 more."


def test_endings():
    assert suggested_ending("fst", WORDS) == ": did you mean fast?"
    assert suggested_ending("zzz", WORDS[:2], "step.") == ": known are step.exact, step.fast."
