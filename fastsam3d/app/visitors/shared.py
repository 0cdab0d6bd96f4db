"""Keeps the objects that all visitors of the page share: the pipeline, its queue and the folder for files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastsam3d.app.rooms.model import RoomModel
from fastsam3d.app.runs.comparison import warm_up
from fastsam3d.app.runs.queue import Job, JobQueue
from fastsam3d.app.server.upload_store import Intake
from fastsam3d.app.server.uploads import Limits
from fastsam3d.basics.threads.adaptation import AdaptedThreads
from fastsam3d.marking.segmentation import Segmenter, segment


class Studio:
    """Holds the objects that all visitors share: the pipeline, loaded once, its queue, and the folder for all files.

    Args:
        load: makes the pipeline; called in the queue's thread at the first job.
        folder: all files are written below it.
        about: returns facts about a pipeline for reports.
        warm: whether there are runs before the first job whose results are not used, so that times can be compared.
        rooms: answers questions about rooms; None: the small model of this package.
        threads: number of threads of an operation on the CPU; None: see `fastsam3d.basics.threads.adaptation`.
        model_note: the page's sentence about the model under its title, HTML; None shows nothing.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        folder: Path,
        queue: JobQueue,
        limits: Limits | None = None,
        segmenter: Segmenter = segment,
        about: Callable[[Any], Mapping[str, Any]] | None = None,
        warm: bool = True,
        rooms: RoomModel | None = None,
        threads: int | None = None,
        model_note: str | None = None,
    ) -> None:
        self.folder, self.queue = folder, queue
        self.limits = limits or Limits()
        self.intake = Intake(folder / "uploads", self.limits.file_bytes)
        self.segmenter = segmenter
        self.rooms = rooms or RoomModel()
        self.model_note = model_note
        self._load, self._about, self._warm, self._threads = load, about, warm, threads
        self._pipeline: Any = None

    def pipeline(self, job: Job) -> Any:
        """Returns the pipeline. Only jobs call this, and they run one at a time."""
        if self._pipeline is None:
            pipeline = self._load()
            if self._warm:
                warm_up(pipeline, lambda: job.report(None))
            self._pipeline = pipeline
        return self._pipeline

    def computing_threads(self) -> AdaptedThreads:
        """Makes the context manager of a job's threads. Only jobs call this, once they have the pipeline."""
        return AdaptedThreads(self._threads, adapts=self._pipeline.device.type == "cpu")

    def prepare(self) -> Job:
        """Queues loading, so that the first visitor need not wait for it."""
        return self.queue.submit(lambda job: self.pipeline(job) and None)

    def about(self) -> dict[str, Any]:
        """Returns facts about the model and the device, for reports."""
        return dict(self._about(self._pipeline)) if self._about is not None else {}
