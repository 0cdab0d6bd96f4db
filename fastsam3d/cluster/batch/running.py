"""Runs a batch: finds the items, gives the missing ones to the workers, and writes index and report."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastsam3d.basics.processes.temporary import own_folder
from fastsam3d.cluster.batch.index import JSON_LINES, PARQUET, can_write_parquet, write_index
from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.ledger import FOLDER, Ledger, Row
from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.cluster.batch.places import LocalFolder, Place, place_of
from fastsam3d.cluster.batch.progress import Rate, Sums
from fastsam3d.cluster.batch.sources import read_items
from fastsam3d.cluster.engines.inline import run_inline
from fastsam3d.cluster.work.reconstruction import PREFIX, REPORT, ReconstructionWork
from fastsam3d.cluster.work.worker import OK, STOP, Work
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import SILENT, Listener
from fastsam3d.jobs.output_folder import json_text
from fastsam3d.jobs.report import versions
from fastsam3d.jobs.request import Request, as_plain
from fastsam3d.jobs.scene_completion import PLACES
from fastsam3d.jobs.writing.identity import plain_hash, weights_identity
from fastsam3d.jobs.writing.lock import FolderLock

OWN = (REPORT, PARQUET, JSON_LINES)


@dataclass(frozen=True)
class BatchResult:
    """Result of a batch.

    Attributes:
        report: as `report.json` of the output has it.
        index: address of the index.
        failed: how many items are not `ok`.
    """

    report: dict[str, Any]
    index: str
    failed: int


class BatchInterrupted(KeyboardInterrupt):
    """A batch was interrupted; what is done is kept, and the same batch goes on from there."""


def run_batch(options: BatchOptions, request: Request, listener: Listener = SILENT) -> BatchResult:
    """Reconstructs every item of the input into a folder of its own, and writes the index and a summed report.

    An item that fails becomes a row of the index; the other items go on.

    Args:
        request: settings of all items; its inputs and outputs are ignored.

    Raises:
        UserError: anything that the caller can fix, before any work; or the pipeline cannot be loaded.
        BatchInterrupted: Ctrl-C.
    """
    request = on_one_thread(request)
    for text in request.warnings:
        listener.warn(text)
    if options.input is None or options.output is None:
        raise UserError("a batch needs input=FOLDER, a pattern or a manifest, and output=FOLDER.")
    listener.step("reading the input")
    items, doubts = read_items(options.input)
    for text in doubts:
        listener.warn(text)
    settings = settings_hash(request)
    work = ReconstructionWork(request, options.output, settings, options.resume)
    described = {"input": options.input, "settings": as_plain(request)}
    return run_items(options, items, work, described, listener)


def run_items(
    options: BatchOptions,
    items: Sequence[Item],
    work: Work,
    described: dict[str, Any],
    listener: Listener = SILENT,
) -> BatchResult:
    """Runs any work on items; see `run_batch`.

    Args:
        described: entries of the report.
    """
    assert options.output is not None
    engine = engine_of(options)
    output = place_of(options.output)
    _refuse_reserved(items)
    if not can_write_parquet():
        listener.note(f"pyarrow is not installed: the index will be {JSON_LINES}. pip install 'fastsam3d[ray]'.")
    with _opened(output, options.resume) as ledger:
        sums, todo = _sorted_out(output, items, work, ledger)
        done = len(items) - len(todo)
        if done:
            listener.note(f"{done} of {len(items)} items are done already")
        rate = Rate(len(items), done)
        listener.step("starting the workers")
        try:
            # Closed whatever happens here, so that no worker goes on behind a batch that has ended.
            with closing(engine(todo, work)) as rows:
                for row in rows if todo else ():
                    if row["status"] == STOP:
                        raise UserError(row["error"])
                    ledger.append(row)
                    sums.add(row)
                    listener.step(*rate.add(row))
        except KeyboardInterrupt:
            ready = sums.statuses[OK]
            raise BatchInterrupted(
                f"interrupted; {ready} of {len(items)} items are done: the same command goes on"
            ) from None
        index = write_index(output, items, ledger, sorted(sums.stages))
        report = {
            **described,
            **sums.described(),
            "reused": done,
            "run_seconds": rate.seconds,
            "engine": options.engine,
            "workers": list(options.least_and_most) if options.engine != "inline" else [1, 1],
            "index": index,
            "versions": versions(),
        }
        output.write(REPORT, json_text(report).encode())
    return BatchResult(report, f"{output.address}/{index}", len(items) - sums.statuses[OK])


def engine_of(options: BatchOptions) -> Callable[[Sequence[Item], Work], Generator[Row, None, None]]:
    """Returns the engine that the options name.

    Raises:
        UserError: Ray is not installed.
    """
    if options.engine == "inline":
        return run_inline
    from fastsam3d.cluster.engines.ray_data import require_ray, run_on_ray

    require_ray()
    return lambda items, work: run_on_ray(items, work, options)


def on_one_thread(request: Request) -> Request:
    """Returns the request with one thread on a CPU, if no number of threads was given.

    Workers then share the cores, and the number of workers changes no byte.
    """
    if request.threads is None and request.device_name() == "cpu":
        return replace(request, threads=1)
    return request


def settings_hash(request: Request) -> str:
    """Computes a hash of all settings that results depend on, and of the weights."""
    settings = {key: value for key, value in as_plain(request).items() if key not in (*PLACES, "seed")}
    whole = [settings, request.seed, weights_identity(request), versions()["fastsam3d"], request.device_name()]
    return plain_hash(json.loads(json_text(whole)))


def _refuse_reserved(items: Sequence[Item]) -> None:
    for item in items:
        if item.name in OWN:
            raise UserError(f"an item is called {item.name}, as a file of the batch is: give it another name.")
        if not item.name or item.name.startswith("."):  # the ledger is in a hidden folder, and ".." leads out
            raise UserError(f"{item.image}: an item cannot be called {item.name!r}. Give a name in a manifest.")


@contextmanager
def _opened(output: Place, resume: bool) -> Iterator[Ledger]:
    """The ledger; the output is locked for this process, where it is a folder."""
    with ExitStack() as stack:
        scratch = Path(".")
        if isinstance(output, LocalFolder):
            made = [folder for folder in (output.path / FOLDER, output.path) if not folder.exists()]
            stack.callback(_remove_empty, made)  # runs after the lock is released, whose file is in the first one
            try:
                (output.path / FOLDER).mkdir(parents=True, exist_ok=True)
                stack.callback(FolderLock(output.path / FOLDER).release)
            except OSError as error:
                raise UserError(
                    f"cannot write to output={output.path} ({error.strerror or error}): choose another folder."
                ) from None
        else:
            scratch = stack.enter_context(own_folder(PREFIX))
        ledger = Ledger(output, scratch, resume=resume)
        stack.callback(ledger.close)
        yield ledger


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes folders that were made for a batch which then wrote nothing, the inner ones first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _sorted_out(output: Place, items: Sequence[Item], work: Work, ledger: Ledger) -> tuple[Sums, list[Item]]:
    """(sums of what is done, items to compute)."""
    listed = (
        None if isinstance(output, LocalFolder) or not any(item.name in ledger for item in items) else output.files()
    )
    sums, todo = Sums(), []
    for item in items:
        row = ledger.get(item.name)
        done = row is not None and row["status"] == OK and row["made_of"] == item.made_of(work.settings)
        if done and row is not None and _is_there(output, item.name, row.get("files", {}), listed):
            sums.add(row)
        else:
            todo.append(item)
    return sums, todo


def _is_there(output: Place, name: str, files: dict[str, int], listed: dict[str, str] | None) -> bool:
    """Tells whether all files of a result exist with their recorded sizes."""
    if listed is None:
        return all(output.size(f"{name}/{file}") == size for file, size in files.items())
    return all(listed.get(f"{name}/{file}", "").partition("-")[0] == str(size) for file, size in files.items())
