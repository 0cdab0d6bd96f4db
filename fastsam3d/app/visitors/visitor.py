"""Remembers the picture, marks, runs and files of one visitor; knows no web page."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.app.marking.marks import Marking
from fastsam3d.app.rooms.choosing import read_uploaded_room
from fastsam3d.app.runs.comparison import Comparison, ComparisonRequest, compare, run_once, seeds_from
from fastsam3d.app.runs.queue import Job
from fastsam3d.app.runs.results import ResultFiles, new_folder, write_results
from fastsam3d.app.server.upload_store import Intake
from fastsam3d.app.server.uploads import read_upload, read_uploaded_mask
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.basics.config_files import preset_names
from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import all_masks, doubts
from fastsam3d.jobs.pictures import Picture, example_directory, picture_in
from fastsam3d.jobs.pointmaps import read_pointmap
from fastsam3d.mllm.mini.asking import FAMILY, ask, check_question, pruning_preset
from fastsam3d.mllm.scenes.rooms import Room

EXAMPLES = {"chair": "Chair", "car": "Pick-up", "toys": "Four toys"}
"""Bundled examples and what they are called in the page."""


@dataclass(frozen=True)
class Finished:
    """A comparison with its request and files; `selected` is the seed that is shown."""

    request: ComparisonRequest
    comparison: Comparison
    files: ResultFiles
    selected: int


class Session:
    """One visitor. Methods may be called from several threads."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.picture: Picture | None = None
        self.pointmap: np.ndarray | None = None
        self.marking: Marking | None = None
        self.has_masks = False
        self.job: Job | None = None
        self.finished: Finished | None = None
        self.room: Room | None = None  # that the visitor uploaded
        self._folder: Path | None = None
        self._kept: list[ResultFiles] = []
        self._lock = threading.RLock()

    def open_example(self, name: Any) -> None:
        """Opens a bundled picture with its point map, unmarked.

        Raises:
            UserError: there is no such example.
        """
        if not isinstance(name, str) or name not in EXAMPLES:
            raise UserError("There is no such example.")
        picture = picture_in(example_directory(name))
        pointmap, _, _ = read_pointmap("auto", picture)
        self._open(picture, pointmap, has_masks=True)

    def open_upload(self, path: str | Path) -> str | None:
        """Opens an uploaded picture; a cut-out is marked already. Returns a note where it was changed.

        Raises:
            UserError: it cannot be used. What was open stays open.
        """
        picture, note = read_upload(path, self.studio.limits)
        self._open(picture, None, has_masks=False)
        if picture.alpha is not None:
            inside = picture.alpha > 127
            if inside.any():
                assert self.marking is not None
                self.marking.add_mask(inside)
                note = " ".join(filter(None, [note, "Its transparent background was taken as the mask."]))
        return note

    def add_mask(self, path: str | Path) -> str | None:
        """Adds an object from an uploaded mask; returns a note where something is doubtful about it.

        Raises:
            UserError: no picture is open, or the mask cannot be used.
        """
        with self._lock:
            marking = self._marking()
            assert self.picture is not None
            mask = read_uploaded_mask(path, self.picture, self.studio.limits)
            marking.add_mask(mask.pixels)
        return " ".join(doubts(mask)) or None

    def act(self, action: Mapping[str, Any]) -> str | None:
        """Carries out an action of the page; returns a note for the visitor.

        `{"action": "example", "name"}`; `{"action": "picture"}` and `{"action": "mask"}` with the `"token"` of an
        upload; `{"action": "example_masks"}`; all else is for `Marking.apply`.

        Raises:
            UserError: it is not possible, or no picture is open.
        """
        kind = action.get("action")
        if kind == "example":
            self.open_example(action.get("name"))
        elif kind in ("picture", "mask"):
            path = self.studio.intake.take(action.get("token"))
            try:
                if kind == "picture":
                    return self.open_upload(path)
                return self.add_mask(path)
            finally:
                Intake.discard(path)
        elif kind == "example_masks":
            self._mark_example()
        else:
            with self._lock:
                self._marking().apply(action)
        return None

    def _mark_example(self) -> None:
        with self._lock:
            marking = self._marking()
            if self.picture is None or not self.has_masks:
                raise UserError("Only the examples come with masks.")
            marking.apply({"action": "clear"})
            for mask in all_masks(self.picture):
                marking.add_mask(mask.pixels)

    def request(self, config: AccelerationConfig, first_seed: Any, count: Any, plain_too: bool) -> ComparisonRequest:
        """Makes the request from the marks and these settings.

        Raises:
            UserError: nothing is marked, or the seeds are not possible.
        """
        with self._lock:
            marking = self._marking()
            if not marking.masks:
                raise UserError("Mark an object first: drag a box around it, or click on it.")
            assert self.picture is not None
            seeds = seeds_from(first_seed, count, self.studio.limits.seeds)
            return ComparisonRequest(
                self.picture.pixels, tuple(marking.masks), config, seeds, bool(plain_too), self.pointmap
            )

    def start(self, request: ComparisonRequest) -> Job:
        """Queues a request.

        Raises:
            UserError: one of this visitor's runs is not finished, or too many are waiting.
        """

        def work(job: Job) -> Finished:
            pipeline = self.studio.pipeline(job)
            with self.studio.computing_threads() as threads:
                comparison = compare(pipeline, request, threads.before(job.report))
            return self._finish(request, comparison, comparison.candidates[comparison.best].seed)

        return self._submit(work)

    def start_plain(self) -> Job:
        """Queues `off` with the seed that is shown, for comparison.

        Raises:
            UserError: there is no result, or see `start`.
        """
        finished = self._result()

        def work(job: Job) -> Finished:
            seed = finished.selected
            pipeline, off = self.studio.pipeline(job), load_preset("off")
            with self.studio.computing_threads() as threads:
                run = run_once(pipeline, finished.request, off, seed, 0, 1, threads.before(job.report))
            comparison = replace(finished.comparison, plain={**finished.comparison.plain, seed: run})
            return self._finish(finished.request, comparison, seed)

        return self._submit(work)

    def open_room(self, token: Any) -> Room:
        """Opens an uploaded room file.

        Raises:
            UserError: it holds no room. What was open stays open.
        """
        path = self.studio.intake.take(token)
        try:
            self.room = read_uploaded_room(path)
        finally:
            Intake.discard(path)
        return self.room

    def ask(self, room: Room, question: str, preset: Any) -> Job:
        """Queues a question about a room; the result of the job is `fastsam3d.mllm.mini.asking.Asked`.

        Raises:
            UserError: the question or the preset is not possible, or see `start`.
        """
        if preset not in preset_names(FAMILY):  # a preset's file is none of a visitor's business
            raise UserError("There is no such preset.")
        question, config, rooms = check_question(question), pruning_preset(preset), self.studio.rooms
        return self._submit(lambda job: ask(rooms.get(), room, question, config, lambda: job.report(None)))

    def select(self, seed: Any) -> None:
        """Shows the run of another seed.

        Raises:
            UserError: it was not run.
        """
        finished = self._result()
        self.finished = replace(finished, selected=finished.comparison.candidate(seed).seed)

    def stop(self) -> None:
        """Cancels the run in progress, if there is one."""
        if self.job is not None and not self.job.ended:
            self.job.cancel()

    def close(self) -> None:
        """Stops, and removes this visitor's files."""
        self.stop()
        for files in self._kept:
            shutil.rmtree(files.folder, ignore_errors=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self, picture: Picture, pointmap: np.ndarray | None, has_masks: bool) -> None:
        with self._lock:
            self.has_masks = has_masks
            self.picture, self.pointmap = picture, pointmap
            self.marking = Marking(picture.pixels, self.studio.segmenter, self.studio.limits.objects)

    def _marking(self) -> Marking:
        if self.marking is None:
            raise UserError("Choose a picture first.")
        return self.marking

    def _result(self) -> Finished:
        if self.finished is None:
            raise UserError("There is no result yet.")
        return self.finished

    def _submit(self, work: Any) -> Job:
        with self._lock:
            if self.job is not None and not self.job.ended:
                raise UserError("Your last run is not finished. Wait for it, or stop it.")
            self.job = self.studio.queue.submit(work)
            return self.job

    def _finish(self, request: ComparisonRequest, comparison: Comparison, seed: int) -> Finished:
        if self._folder is None:
            self._folder = new_folder(self.studio.folder)
        files = write_results(
            self._folder, comparison, seed, request.picture, request.masks, request.pointmap, self.studio.about()
        )
        self._kept.append(files)
        while len(self._kept) > self.studio.limits.results:
            shutil.rmtree(self._kept.pop(0).folder, ignore_errors=True)
        self.finished = Finished(request, comparison, files, seed)
        return self.finished
