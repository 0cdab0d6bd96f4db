"""Keeps the runs and files of one visitor, in addition to the picture and its marks; contains no web code."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.app.rooms.choosing import read_uploaded_room
from fastsam3d.app.runs.comparison import OFF, Comparison, ComparisonRequest, compare, run_once, seeds_from
from fastsam3d.app.runs.queue import Job, Stop
from fastsam3d.app.runs.results import new_folder, write_results
from fastsam3d.app.server.upload_store import Intake
from fastsam3d.app.visitors.history import Finished, History
from fastsam3d.app.visitors.picture import MarkedPicture, file_name
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.basics.config_files import preset_names
from fastsam3d.errors import UserError
from fastsam3d.jobs.writing.names import object_names
from fastsam3d.meshes.writing import Preparation
from fastsam3d.mllm.mini.asking import FAMILY, ask, check_question, pruning_preset
from fastsam3d.mllm.scenes.rooms import Room

WRITING = "writing"
"""Progress of a job while it writes its files."""


class Session(MarkedPicture):
    """One visitor. Methods may be called from several threads."""

    def __init__(self, studio: Studio) -> None:
        super().__init__(studio)
        self.job: Job | None = None
        self.finished: Finished | None = None
        self.room: Room | None = None  # uploaded by the visitor
        self.history = History(studio.limits.results)
        self._folder: Path | None = None
        self._closed = False

    def request(
        self,
        config: AccelerationConfig,
        first_seed: Any,
        count: Any,
        plain_too: bool = False,
        preparation: Preparation | None = None,
    ) -> ComparisonRequest:
        """Makes the request from the marks and these settings.

        Raises:
            UserError: nothing is marked, or the seeds are not valid.
        """
        with self._lock:
            marking = self._marking()
            if not marking.masks:
                raise UserError("Mark an object first: drag a box around it, or click on it.")
            assert self.picture is not None
            return ComparisonRequest(
                self.picture.pixels,
                tuple(marking.masks),
                config,
                seeds_from(first_seed, count, self.studio.limits.seeds),
                bool(plain_too),
                self.pointmap,
                tuple(object_names([file_name(name) for name in marking.names])[0]),
                preparation or Preparation(),
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
            best = comparison.candidates[comparison.best].seed
            return self._finish(job, request, comparison, best, self.history.next_number())

        return self._submit(work)

    def start_plain(self) -> Job:
        """Queues a run of `off` with the shown seed, for comparison.

        Raises:
            UserError: there is no result, the shown run is `off` itself, or see `start`.
        """
        finished = self._result()
        if finished.comparison.candidate(finished.selected).preset == OFF:
            raise UserError("This run is without acceleration already.")

        def work(job: Job) -> Finished:
            seed = finished.selected
            pipeline, off = self.studio.pipeline(job), load_preset(OFF)
            with self.studio.computing_threads() as threads:
                run = run_once(pipeline, finished.request, off, seed, 0, 1, threads.before(job.report))
            comparison = replace(finished.comparison, plain={**finished.comparison.plain, seed: run})
            return self._finish(job, finished.request, comparison, seed, finished.number)

        return self._submit(work)

    def start_writing(self, preparation: Preparation) -> Job:
        """Queues a job that writes the files of the shown result again, with other changes of the meshes.

        Raises:
            UserError: there is no result, or see `start`.
        """
        finished = self._result()
        request = replace(finished.request, preparation=preparation)
        return self._submit(
            lambda job: self._finish(job, request, finished.comparison, finished.selected, finished.number)
        )

    def open_room(self, token: Any) -> Room:
        """Opens an uploaded room file.

        Raises:
            UserError: the file holds no room. Then the earlier room stays open.
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
            UserError: the question or the preset is not valid, or see `start`.
        """
        if preset not in preset_names(FAMILY):  # a visitor must not name a file as the preset
            raise UserError("There is no such preset.")
        question, config, rooms = check_question(question), pruning_preset(preset), self.studio.rooms
        return self._submit(lambda job: ask(rooms.get(), room, question, config, lambda: job.report(None)))

    def select(self, seed: Any) -> None:
        """Shows the run of another seed.

        Raises:
            UserError: the seed was not run.
        """
        finished = self._result()
        self.finished = replace(finished, selected=finished.comparison.candidate(seed).seed)
        self.history.put(self.finished)

    def show_run(self, number: Any) -> None:
        """Shows an earlier result of this session.

        Raises:
            UserError: the result was removed.
        """
        self.finished = self.history.find(number)

    @property
    def is_busy(self) -> bool:
        """Tells whether a run of this visitor waits or runs."""
        return self.job is not None and not self.job.ended

    def stop(self) -> None:
        """Cancels the run in progress, if there is one."""
        if self.job is not None and not self.job.ended:
            self.job.cancel()

    def close(self) -> None:
        """Stops, and removes this visitor's files, also those that a job writes at this moment."""
        self.stop()
        with self._lock:
            self._closed = True
            self._remove_files()

    def _remove_files(self) -> None:
        self.history.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

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

    def _finish(self, job: Job, request: ComparisonRequest, comparison: Comparison, seed: int, number: int) -> Finished:
        if self._folder is None:
            self._folder = new_folder(self.studio.folder)
        try:
            files = write_results(
                self._folder, comparison, seed, request, self.studio.about(), lambda: job.report(WRITING)
            )
            with self._lock:
                if not self._closed:
                    self.finished = Finished(request, comparison, files, seed, number)
                    self.history.put(self.finished)
                    return self.finished
        except (OSError, UserError):
            if not self._closed:
                raise
        finally:
            if self._closed:  # what was written after the visitor had left has made the folder again
                self._remove_files()
        raise Stop("Stopped.")
