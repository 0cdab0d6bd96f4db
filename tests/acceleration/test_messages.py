"""What `accelerate` says: mistyped techniques, and the log of what it attached."""

from __future__ import annotations

import logging

import pytest

import fastsam3d
from fastsam3d.acceleration.presets import load_preset


@pytest.mark.parametrize("value", [True, {"stride": 2}, 3])
def test_a_mistyped_technique_is_answered_with_its_name(value):
    with pytest.raises(fastsam3d.UserError, match=r"^unknown technique 'step_cachin': did you mean step_caching"):
        load_preset("balanced", {"step_cachin": value})
    with pytest.raises(fastsam3d.UserError, match="did you mean step_caching"):
        load_preset("balanced", {"step_cachin.stride": value})
    with pytest.raises(fastsam3d.UserError, match="did you mean step_caching"):
        load_preset({"step_cachin": value})


def test_the_log_says_what_was_attached_and_removed(caplog):
    pipeline = fastsam3d.load_pipeline("mini", "cpu", random_weights=True, formats=("mesh",))
    with caplog.at_level(logging.INFO, logger="fastsam3d"), fastsam3d.accelerate(pipeline, "paper") as handle:
        pass
    lines = [record.getMessage() for record in caplog.records if record.name == "fastsam3d.acceleration.handle"]
    assert lines[0] == handle.summary() and lines[0].startswith("attached paper to Pipeline: approximate: ")
    # Techniques are in the order of their registration, which depends on the modules that were imported before.
    approximate = lines[0].partition("approximate: ")[2].partition("; ")[0].split(", ")
    assert sorted(approximate) == ["adaptive_caching", "step_caching", "token_aggregation", "token_carving"]
    exact = lines[0].partition("; exact: ")[2].split(", ")
    assert [f"exact.{name}" for name in exact] == [name for name in handle.config.enabled if name.startswith("exact.")]
    assert lines[1] == "removed paper from Pipeline"


def test_nothing_is_said_to_be_nothing():
    pipeline = fastsam3d.load_pipeline("mini", "cpu", random_weights=True, formats=("mesh",))
    assert fastsam3d.accelerate(pipeline, "off").summary().endswith(": nothing")
