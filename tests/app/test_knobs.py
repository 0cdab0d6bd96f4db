"""The page's settings: what presets say, and what turning a knob changes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.app.page.knobs import IN_WORDS, choices, configure, knobs_of, presets
from fastsam3d.app.runs.comparison import seeds_from
from fastsam3d.errors import UserError


def values(preset: str) -> tuple:
    knobs = knobs_of(preset)
    return knobs.stride, knobs.error, knobs.carving, knobs.merging


def test_presets_for_users_are_offered_the_default_first() -> None:
    offered = presets()
    assert next(iter(offered)) == "balanced" and {"off", "fast", "exact", "paper"} <= set(offered)
    assert "easycache" not in offered and all(offered.values())


def test_the_words_of_the_presets_give_the_figures_of_the_readme() -> None:
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    for name, words in IN_WORDS.items():
        said = re.search(r"([\d.]+)×", words)
        rows = [line.split("|") for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        measured = {float(cell) for row in rows for cell in re.findall(r"([\d.]+)×", "|".join(row))}
        assert said is None or any(round(value, 1) == float(said[1]) for value in measured), (name, measured)
    assert list(dict(choices()).values()) == list(presets())


@pytest.mark.parametrize("preset", sorted(presets()))
def test_without_turning_a_knob_a_preset_is_itself(preset: str) -> None:
    assert configure(preset, *values(preset)) == load_preset(preset)


def test_turned_knobs_change_what_they_say_and_nothing_else() -> None:
    stride, error, carving, merging = values("balanced")
    plain = load_preset("balanced")
    changed = configure("balanced", 2 if stride != 2 else 3, error, carving, merging)
    assert changed.name == "balanced_changed" and changed["step_caching"].enabled
    assert not changed["multistep"].enabled  # both would decide when the network runs
    assert changed["latent_multistep"] == plain["latent_multistep"]
    bolder = configure("balanced", stride, 1.0, carving, merging)
    assert bolder["adaptive_caching"].threshold == 1.0 and not bolder["latent_multistep"].enabled
    assert bolder["multistep"] == plain["multistep"]
    still = configure("balanced", 1, 0, False, False)
    assert not still["step_caching"].enabled and not still["adaptive_caching"].enabled
    assert still["exact"] == plain["exact"]
    more = configure("off", 2, 0.5, True, True)
    assert set(more.enabled) == {"step_caching", "adaptive_caching", "token_carving", "token_aggregation"}


@pytest.mark.parametrize(
    "settings",
    [("nope", 1, 0, False, False), ("balanced", 99, 0, 0, 0), ("balanced", 1, float("nan"), 0, 0), (None, 1, 0, 0, 0)],
)
def test_values_that_the_page_would_never_send_are_refused(settings: tuple) -> None:
    with pytest.raises(UserError):
        configure(*settings)


def test_seeds_follow_each_other_within_the_limit() -> None:
    assert seeds_from(3, 2, 4) == (3, 4)
    for first, count in ((-1, 1), (0, 0), (0, 5), (None, 1), (float("inf"), 1), ("x", 1), (2**63, 1), (2**32 - 1, 2)):
        with pytest.raises(UserError):
            seeds_from(first, count, 4)
