"""The work of a batch: one item to the folder that `infer` or `scene` would write."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastsam3d.basics.processes.temporary import own_folder
from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.places import LocalFolder, Place, place_of
from fastsam3d.cluster.work.fetching import PREFIX, Fetched, inputs_of
from fastsam3d.errors import UserError
from fastsam3d.jobs.request import Request

REPORT = "report.json"
ENTRY = "batch"
"""Entry of a result's report that says which item it is, and what it was made of."""
WAIT_FOR_FOLDER = 30.0
"""Seconds that a worker waits for the lock of a folder: that of a worker which is just being killed."""


@dataclass(frozen=True)
class ReconstructionWork:
    """The work of a batch. It is sent to each worker and opened there.

    Attributes:
        request: settings of all items.
        output: folder or address.
        settings: hash of the settings.
        resume: use complete results that were made from the same inputs and settings.
    """

    request: Request
    output: str
    settings: str
    resume: bool = True

    @contextmanager
    def opened(self) -> Iterator[Reconstructor]:
        """Loads and accelerates the pipeline, once.

        Raises:
            UserError: see `fastsam3d.jobs.request.Request.load`.
        """
        from fastsam3d.jobs.running import accelerated

        with ExitStack() as stack:
            yield Reconstructor(self, place_of(self.output), lambda: stack.enter_context(accelerated(self.request)))


class Reconstructor:
    """Runs items on one pipeline, which is loaded when the first of them has to be computed."""

    def __init__(self, work: ReconstructionWork, output: Place, load: Any) -> None:
        self._work, self._output, self._load = work, output, load
        self._pipeline: Any = None

    def load(self) -> None:
        """Loads the pipeline, if that was not done yet.

        Raises:
            UserError: see `ReconstructionWork.opened`.
        """
        if self._pipeline is None:
            self._pipeline = self._load()

    def finished(self, item: Item) -> dict[str, Any] | None:
        """Reads the facts of a complete result from the same inputs and settings; None if there is none."""
        if not self._work.resume:
            return None
        try:
            report = json.loads(self._output.read(f"{item.name}/{REPORT}"))
            if report[ENTRY]["made_of"] != item.made_of(self._work.settings) or _failed(report):
                return None
            sizes = {name: self._output.size(f"{item.name}/{name}") for name in (*_names(report), REPORT)}
            there = {name: size for name, size in sizes.items() if size is not None}
            return facts_of(report, there) if len(there) == len(sizes) else None
        except (UserError, ValueError, KeyError, TypeError, AttributeError):  # missing, or damaged: it is made again
            return None

    def run(self, fetched: Fetched) -> dict[str, Any]:
        """Computes an item and writes its folder; returns its facts.

        Raises:
            UserError: anything that the caller can fix.
        """
        item = fetched.item
        if isinstance(self._output, LocalFolder):
            return self._run(fetched, self._output.path / item.name)
        with own_folder(PREFIX) as temporary:
            facts = self._run(fetched, temporary / item.name)
            names = sorted(facts["files"], key=lambda name: (name == REPORT, name))  # whoever finds it finds the others
            for name in names:
                self._output.write(f"{item.name}/{name}", (temporary / item.name / name).read_bytes())
        return facts

    def _run(self, fetched: Fetched, folder: Path) -> dict[str, Any]:
        from fastsam3d.jobs.scene_progress import MadeOtherwise

        item = fetched.item
        entry = {"item": item.name, "made_of": item.made_of(self._work.settings), "image": item.image}
        with inputs_of(fetched) as inputs:
            request = replace(
                self._work.request,
                image_path=str(inputs.image),
                mask_path=None if inputs.mask is None else str(inputs.mask),
                masks=None if inputs.masks is None else str(inputs.masks),
                pointmap=self._work.request.pointmap if inputs.pointmap is None else inputs.pointmap,
                seed=self._work.request.seed if item.seed is None else item.seed,
                name=None if item.scene else item.name,
                output_dir=str(folder),
                resume=item.scene and self._work.resume,
                warnings=(),
            )
            try:
                report, paths = self._job(item, request, {ENTRY: entry})
            except MadeOtherwise:
                report, paths = self._job(item, replace(request, resume=False), {ENTRY: entry})
        return facts_of(report, {path.name: path.stat().st_size for path in paths})

    def _job(self, item: Item, request: Request, more: Mapping[str, Any]) -> tuple[dict[str, Any], list[Path]]:
        from fastsam3d.jobs.objects import run_object
        from fastsam3d.jobs.scenes import run_scene
        from fastsam3d.jobs.writing.lock import FolderTaken

        end = time.monotonic() + WAIT_FOR_FOLDER
        while True:
            try:
                result: Any = (run_scene if item.scene else run_object)(request, self._pipeline, more=more)
                return result.report, result.paths
            except FolderTaken:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)


def facts_of(report: Mapping[str, Any], files: Mapping[str, int]) -> dict[str, Any]:
    """Collects the values of a result for the index.

    Args:
        files: bytes by name.
    """
    objects = report["objects"]
    done = [item for item in objects if "error" not in item]
    failed = [f"{item['name']}: {item['error']}" for item in objects if "error" in item]
    agreement = [item["mask_iou"] for item in done if item.get("mask_iou") is not None]
    acceleration = report["acceleration"]
    return {
        "error": "; ".join(failed) or None,
        "objects": len(objects),
        "failed_objects": len(failed),
        "seconds": report["seconds"]["run"] + report["seconds"]["write"],
        "stage_seconds": dict(acceleration["seconds"]) | {"write": report["seconds"]["write"]},
        "evaluations": sum(stage["evaluations"] for stage in acceleration["stages"].values()),
        "faces": sum(item.get("exported", item).get("faces", 0) for item in done),
        "mask_iou": sum(agreement) / len(agreement) if agreement else None,
        "bytes": sum(files.values()),
        "files": dict(files),
    }


def _failed(report: Mapping[str, Any]) -> bool:
    return any("error" in item for item in report["objects"])


def _names(report: Mapping[str, Any]) -> set[str]:
    """Names of the files in a report."""
    found: set[str] = set(report.get("scene", {}).get("complete", {}).get("files", {}))
    for item in report["objects"]:
        for kind, value in item.get("files", {}).items():
            if not kind.endswith("_holds"):
                found |= {value} if isinstance(value, str) else set(value)
    return {name for name in found if Path(name).name == name}
