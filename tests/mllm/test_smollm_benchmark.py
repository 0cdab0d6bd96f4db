"""The benchmark on genuine weights: what its questions, methods and tables are. The model itself is not needed."""

from __future__ import annotations

import pytest
from smollm_pruning import first_word, room_of_all_different, settings_of
from smollm_pruning_report import markdown

from fastsam3d.errors import UserError

ENVIRONMENT = {"machine": "m", "threads": 1, "torch": "2", "transformers": "5"}


def reading(method, number, milliseconds, left_out=0.0, fewer=1.0):
    return {
        "method": method,
        "objects": 20,
        "round": number,
        "milliseconds": milliseconds,
        "scoring_milliseconds": number,
        "prompt_tokens": 400,
        "visual_tokens": 320,
        "left_out": left_out,
        "fewer_operations": fewer,
    }


def test_every_object_of_a_room_is_of_another_class():
    for seed in range(5):
        room = room_of_all_different(seed)
        assert len(room) == len(set(room.classes.tolist())) == 20


def test_a_method_may_name_the_layer_of_its_cut():
    assert settings_of("fastv_90") == ("fastv_90", {})
    assert settings_of("fastv_90@15") == ("fastv_90", {"pruning": {"layer": 15}})
    assert settings_of("random_90", 30) == ("random_90", {"random": {"seed": 30}})
    with pytest.raises(ValueError, match="a whole number"):
        settings_of("fastv_90@half")


@pytest.mark.parametrize(("answer", "word"), [(" Blue", "blue"), (" blue.\nred", "blue"), ("", ""), (" 12", "")])
def test_the_first_word_of_an_answer_counts(answer, word):
    assert first_word(answer) == word


def test_times_are_medians_and_ratios_are_formed_within_a_round():
    # In three rounds 100, 200, 600 ms plain and 50, 50, 100 ms pruned: ratios 2, 4, 6, and never 200 by 50.
    plain = [reading("off", number, ms) for number, ms in ((1, 100), (2, 200), (3, 600))]
    pruned = [reading("fastv_90", number, ms, 0.887, 5.0) for number, ms in ((1, 50), (2, 50), (3, 100))]
    content = {"environment": ENVIRONMENT, "readings": plain + pruned, "answers": [], "unfinished": []}
    lines = markdown(content).splitlines()
    assert "**320 visual tokens** of 20 objects, 400 in all, medians, rounds: 3" in lines
    assert "| `off` | 0% | 200 | 100–600 | 2.0 | 1.00 | 1.00 |" in lines
    assert "| `fastv_90` | 89% | 50 | 50–100 | 2.0 | 4.00 | 5.00 |" in lines


def test_answers_are_counted_over_batches_and_against_the_whole_prompt():
    def batch(method, right, stays, left_out, kept):
        return {"method": method, "right": right, "asked_stays": stays, "left_out": left_out, "kept": kept}

    answers = [
        batch("off", [True, False, True], [True, True, True], 0.0, 1.0),
        batch("random_90", [False, True, True], [False, False, True], 0.8, 0.1),
        batch("off", [True], [True], 0.0, 1.0),
        batch("random_90", [False], [False], 0.9, 0.1),
    ]
    content = {"environment": ENVIRONMENT, "readings": [], "answers": answers, "unfinished": ["4 of 9 questions"]}
    text = markdown(content)
    assert "| `off` | 0% | 100% | 100% | 3 of 4 | 3 of 3 (100%) |" in text
    # Of the questions 1, 3 and 4, which the whole prompt answers, the third.
    assert "| `random_90` | 85% | 10% | 25% | 2 of 4 | 1 of 3 (33%) |" in text
    assert text.endswith("The time budget ended after 4 of 9 questions.\n")


def test_a_layer_that_is_no_number_is_an_error_for_people(monkeypatch):
    import smollm_pruning

    monkeypatch.setattr(smollm_pruning, "load_smollm", lambda: pytest.fail("loaded"))
    with pytest.raises(UserError, match="fastv_90@half"):
        smollm_pruning.main(["speed=off,fastv_90@half"])
