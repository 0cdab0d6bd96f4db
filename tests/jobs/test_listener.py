"""Warnings of a job: each once, for the listener and the report."""

from __future__ import annotations

import logging

from fastsam3d.jobs.listener import SILENT, ReportedWarnings

LOGGER = logging.getLogger("fastsam3d.sam3d.pipeline")


def test_warnings_of_the_library_and_of_the_job_are_one_list(listener):
    told = ReportedWarnings(listener)
    with told.logging():
        LOGGER.warning("no voxel is %s", "occupied")
        told.warn("no voxel is occupied")
        told.warn("another")
        LOGGER.info("not a warning")
    LOGGER.warning("afterwards")
    assert told.warnings == listener.warnings == ["no voxel is occupied", "another"]


def test_a_traceback_is_for_the_listener_and_not_for_the_report(listener):
    told = ReportedWarnings(listener)
    with told.logging():
        try:
            raise RuntimeError("a defect")
        except RuntimeError:
            LOGGER.warning("object_0 failed", exc_info=True)
    assert told.warnings == ["object_0 failed"]
    (text,) = listener.warnings
    assert text.startswith("object_0 failed\nTraceback") and text.endswith("RuntimeError: a defect")


def test_steps_and_notes_are_passed_on(listener):
    told = ReportedWarnings(listener)
    told.step("reading")
    told.step("sampling", 2, 5)
    told.note("a note")
    assert listener.steps == [("reading", None, None), ("sampling", 2, 5)] and listener.notes == ["a note"]


def test_nobody_needs_to_listen(capsys):
    told = ReportedWarnings()
    told.step("reading")
    told.note("a note")
    told.warn("a warning")
    SILENT.warn("a warning")
    assert told.warnings == ["a warning"] and capsys.readouterr() == ("", "")
