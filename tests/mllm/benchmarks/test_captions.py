"""Caption metrics and their words, against values worked out by hand, and against pycocoevalcap where it is."""

from __future__ import annotations

import math
import random
import shutil

import pytest

from fastsam3d.mllm.benchmarks.captioning import caption_scores, wrapped
from fastsam3d.mllm.benchmarks.metrics.captions import bleu, cider, rouge_l
from fastsam3d.mllm.benchmarks.metrics.meteor import meteor
from fastsam3d.mllm.benchmarks.metrics.ptb_tokens import ptb_tokens


def words(*texts):
    return [text.split() for text in texts]


LEFT = words("the red chair is left of the table")
TO_THE_LEFT = [words("the red chair is to the left of the table")]


def test_one_caption_with_a_shorter_path_to_the_same_words():
    # All 8 words are in the reference of 10: brevity exp(-1/4); 6 of 7 pairs, 4 of 6 triples, 2 of 5 quadruples.
    brevity = math.exp(-1 / 4)
    shares = (1, 6 / 7, 4 / 6, 2 / 5)
    expected = [brevity * math.prod(shares[:n]) ** (1 / n) for n in range(1, 5)]
    assert bleu(LEFT, TO_THE_LEFT) == pytest.approx(expected, abs=1e-6)
    assert bleu(LEFT, TO_THE_LEFT) == pytest.approx([0.778801, 0.721029, 0.646270, 0.538495], abs=1e-6)
    assert rouge_l(LEFT, TO_THE_LEFT) == pytest.approx(2.44 * 0.8 / (0.8 + 1.44), abs=1e-9)
    assert cider(LEFT, TO_THE_LEFT) == 0  # one document: nothing is rare


def test_cider_by_hand():
    two = words("a b c d e", "f g h i j")
    assert cider(two, [[text] for text in two]) == pytest.approx(10)
    short = words("white", "four")  # single words: the other three lengths are empty
    assert cider(short, [[text] for text in short]) == pytest.approx(2.5)
    assert cider(words("white", "five"), [[text] for text in short]) == pytest.approx(1.25)
    assert cider(words("white", "two"), [words("white", "brown"), words("four", "two")]) == pytest.approx(1.25)


def test_cider_cuts_repetitions_and_lengths():
    # One word three times against once: the clipped product is 1, the norms are 3 and 1; two pairs more than none.
    repeated = words("white white white", "four")
    expected = 10 / 4 * math.exp(-(2**2) / 72) * (1 / 3)
    assert cider(repeated, [words("white"), words("five")]) == pytest.approx(expected / 2)


def test_bleu_by_hand():
    short = words("white", "four")
    scores = bleu(short, [[text] for text in short])
    assert scores[0] == pytest.approx(1)
    assert scores[3] == pytest.approx(3.2e-5, rel=0.02)  # small constants, and not 0
    assert bleu(words("a b c d"), [words("a b c", "a b c d e f")])[0] == pytest.approx(1, abs=1e-6)
    assert bleu(words("a b c d"), [words("a b c", "a b c d e f")]) == pytest.approx([1] * 4, abs=1e-6)
    twice = [words("a b c d"), words("a b c d")]
    assert bleu(words("", "a b c d"), twice) == pytest.approx([0.367879] * 4, abs=1e-6)
    assert rouge_l(words("", "a b c d"), twice) == pytest.approx(0.5)


def test_of_two_equally_near_references_the_shorter_counts():
    # 4 words, references of 3 and 5: against 3 nothing is too short, against 5 it would be.
    assert bleu(words("a b c d"), [words("a b c", "a b c d e")])[0] == pytest.approx(1, abs=1e-6)


def test_a_missed_object_still_earns_something():
    captions = words("sos eos", "sos a brown chair eos")
    targets = [words("sos a brown chair eos")] * 2
    assert bleu(captions, targets) == pytest.approx([0.651439, 0.582665, 0.604742, 0.616093], abs=1e-6)
    assert rouge_l(captions, targets) == pytest.approx(0.765217, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sos The red chair, left of the table. eos", "sos the red chair left of the table eos"),
        ("It's a TV-stand (brown)!", "it 's a tv-stand -lrb- brown -rrb-"),
        ("two; three: 4%", "two three 4 %"),
        ("o'clock don't", "o'clock do n't"),
        ("a/b a&b", "a/b a & b"),
        # From here on, outputs of the Java program.
        ("it is 3.5 meters.. away... ok", "it is 3.5 meters away ok"),
        ("the 3rd 4-foot table's legs and chairs' legs", "the 3rd 4-foot table 's legs and chairs legs"),
        ("I'm you're we've they'll he'd isn't can't", "i 'm you 're we 've they 'll he 'd is n't ca n't"),
        ("cannot gonna", "can not gon na"),
        ("chair no. 3, no. It is 5 ft. wide etc.", "chair no. 3 no it is 5 ft. wide etc."),
        ("the tv.it is on; left--right left - right", "the tv.it is on left right left right"),
        ("1/2 of the 10:30 clock, 1,000 things, $5 #2", "1/2 of the 10:30 clock 1,000 things $ 5 # 2"),
        ("24\" tv, it's 5'6\" tall", "24 tv it 's 5 6 tall"),
        ("<OBJ001>, <OBJ002>.", "<obj001> <obj002>"),
        ("the “big” chair’s arm – there", "the big chair 's arm there"),
        ("what's that? who!!", "what 's that who !!"),
        ("10:30am 12.5-inch 5pm p.m. w/ 2.There", "10:30 am 12.5-inch 5pm p.m. w / 2 there"),
        (".", ""),
    ],
)
def test_words_are_those_of_the_penn_treebank(text, expected):
    assert " ".join(ptb_tokens(text)) == expected


def test_captions_of_scan2cap_are_wrapped_once():
    for text in ("a chair.", "sos a chair. eos", "sos a chair.", " a\nchair. eos"):
        assert wrapped(text) == "sos a chair. eos"
    assert wrapped("") == wrapped("sos eos") == "sos eos"


def test_meteor_is_absent_without_its_program(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert caption_scores(["a chair"], [["a chair"]])["meteor"] is None


def random_captions(seed, count=60):
    draw = random.Random(seed)
    vocabulary = ["the", "a", "red", "brown", "chair", "table", "is", "left", "right", "of", "next", "to", "sink"]

    def text(longest):
        return [draw.choice(vocabulary) for _ in range(draw.randint(1, longest))]

    return [text(9) for _ in range(count)], [[text(12) for _ in range(draw.randint(1, 4))] for _ in range(count)]


def test_scores_are_those_of_pycocoevalcap():
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    captions, targets = random_captions(3)
    generated = {number: [" ".join(text)] for number, text in enumerate(captions)}
    given = {number: [" ".join(text) for text in of_one] for number, of_one in enumerate(targets)}
    assert bleu(captions, targets) == pytest.approx(Bleu(4).compute_score(given, generated, verbose=0)[0], abs=1e-9)
    assert rouge_l(captions, targets) == pytest.approx(float(Rouge().compute_score(given, generated)[0]), abs=1e-9)
    assert cider(captions, targets) == pytest.approx(float(Cider().compute_score(given, generated)[0]), abs=1e-9)


@pytest.mark.slow
def test_meteor_is_that_of_its_program():
    pytest.importorskip("pycocoevalcap")
    if shutil.which("java") is None:
        pytest.skip("METEOR needs Java")
    assert meteor(LEFT, TO_THE_LEFT) == pytest.approx(0.4929, abs=1e-4)


@pytest.mark.slow
def test_words_are_those_of_the_java_program():
    tokenizer = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("the tokeniser needs Java")
    draw = random.Random(5)
    parts = ["the chair", "it's", "isn't", "(left)", "l-shaped", "3 o'clock", "2nd", "tv/monitor", "cabinet's", "3.5"]
    signs = [" ", ", ", ". ", "; ", " - ", "... ", '" ', " & ", "? "]
    texts = ["".join(draw.choice(parts) + draw.choice(signs) for _ in range(8)).strip() for _ in range(200)]
    expected = tokenizer.PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(texts)})
    assert [" ".join(ptb_tokens(text)) for text in texts] == [expected[n][0] for n in range(len(texts))]
