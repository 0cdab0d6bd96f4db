"""Measures batches and the service on this machine.

python benchmarks/scaling.py objects                     # real objects with 1 and 2 workers, in turns
python benchmarks/scaling.py engine items=100000         # the engine alone: items that sleep for 5 ms, 8 workers
python benchmarks/scaling.py service seconds=60          # a service under 1 to 64 clients
python benchmarks/scaling.py service seconds=60 kill=true   # the same, and a replica is killed in the middle
python benchmarks/scaling.py jobs items=200 steps=2      # memory and store of a service over many jobs

Each prints one line of JSON a measurement, with the load of the machine, and with picture=FILE draws them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_memory import OWN, Memory
from scaling_picture import draw
from scaling_work import SleepingWork

from fastsam3d.basics.options import boolean, option, optional_text, parse_options, whole, words
from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.cluster.batch.running import on_one_thread, run_items, settings_hash
from fastsam3d.cluster.batch.sources import read_items
from fastsam3d.cluster.engines.ray_data import run_on_ray
from fastsam3d.cluster.work.reconstruction import ReconstructionWork
from fastsam3d.jobs.request import request_with

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True)
class Options:
    """Options of the measurements."""

    items: int | None = option(None, whole(1), "of `objects` 12, of `engine` 100000, of `jobs` 200")
    rounds: int = option(2, whole(1), "of `objects`: each number of workers is measured so often, in turns")
    steps: int = option(12, whole(1), "of `objects` and `service`: steps of each stage")
    workers: int = option(8, whole(1), "of `engine`")
    engine: str = option("ray", str, "of `engine`, `service` and `jobs`: ray or inline")
    milliseconds: int = option(5, whole(0), "of `engine`: that an item sleeps")
    seconds: int = option(60, whole(1), "of `service`: that each number of clients is measured")
    clients: tuple[str, ...] = option(("1", "4", "16", "64"), words, "of `service`")
    kill: bool = option(False, boolean, "of `service` on Ray: a replica is killed in the middle")
    store_mib: int = option(16, whole(1), "of `jobs`: that the store may hold")
    picture: str | None = option(None, optional_text, "a PNG of the measurements")


def main() -> int:
    """Runs the measurement that the first word names."""
    kinds: dict[str, Callable[[Options], Iterator[dict[str, Any]]]] = {
        "objects": objects,
        "engine": engine,
        "service": service,
        "jobs": jobs,
    }
    if len(sys.argv) < 2 or sys.argv[1] not in kinds:
        print(__doc__)
        return 2
    options = parse_options(Options, sys.argv[2:], "scaling")
    measured = []
    output = sys.stdout  # while a service runs, what is printed goes to Ray's log
    for one in kinds[sys.argv[1]](options):
        measured.append(one | {"load": os.getloadavg()[0]})
        print(json.dumps(measured[-1]), file=output, flush=True)
    if options.picture:
        draw(sys.argv[1], measured, options.picture)
    return 0


def objects(options: Options) -> Iterator[dict[str, Any]]:
    """Objects per second of 1 and 2 workers with one thread each, from the first begin to the last end."""
    samplers = {part: {"inference_steps": options.steps} for part in ("ss_sampler", "slat_sampler")}
    request = on_one_thread(
        request_with(device="cpu", samplers=samplers, preview=False, export=["glb"], output_dir=".")
    )
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.items or 12):
            shutil.copytree(EXAMPLES / ("chair", "car")[number % 2], Path(folder) / "in" / f"{number:03d}")
        items, _ = read_items(f"{folder}/in")
        for turn in range(options.rounds):
            for count in (1, 2) if turn % 2 == 0 else (2, 1):
                output = f"{folder}/out-{turn}-{count}"
                work = ReconstructionWork(request, output, settings_hash(request))
                ends, begins = [], []
                for row in run_on_ray(items, work, BatchOptions(output=output, workers=(count, count))):
                    assert row["status"] == "ok", row["error"]
                    ends.append(time.monotonic())
                    begins.append(ends[-1] - row["wall_seconds"])
                # The first item of each worker loads its pipeline: it is left out.
                spent = max(ends) - sorted(ends)[count - 1]
                rates[count].append((len(ends) - count) / spent)
                yield {"turn": turn, "workers": count, "objects_per_second": rates[count][-1]}
    one, two = (statistics.median(rates[count]) for count in (1, 2))
    yield {"ratio": two / one}


def engine(options: Options) -> Iterator[dict[str, Any]]:
    """Milliseconds of the engine an item, and the memory of the driver until the index is written."""
    count = options.items or 100_000
    items = [Item(f"item_{n:06d}", f"/photos/{n:06d}/image.png") for n in range(count)]
    work = SleepingWork(options.milliseconds / 1000)
    workers = 1 if options.engine == "inline" else options.workers
    with tempfile.TemporaryDirectory() as folder:
        settings = BatchOptions(output=folder, engine=options.engine, workers=(workers, workers))
        listener, start = _FirstAndLast(), time.monotonic()
        with Memory() as memory:
            run_items(settings, items, work, {}, listener)
            end = time.monotonic()
        sizes = {path.name: path.stat().st_size for path in Path(folder).iterdir() if path.is_file()}
    slept = count * work.seconds / workers
    yield {
        "items": count,
        "workers": workers,
        "seconds": listener.last - listener.first,
        "seconds_to_first_row": listener.first - start,
        "seconds_after_last_row": end - listener.last,
        "engine_ms_per_item": 1000 * (listener.last - listener.first - slept) / count,
        "driver_mib_growth": memory.growth(OWN, memory.since(listener.first)),
        "driver_mib_growth_with_start": memory.growth(OWN, 0.0),
        "memory": _thinned(memory.samples[OWN]),
        "sizes": sizes,
    }


def _thinned(samples: list[Any]) -> list[Any]:
    return samples[:: max(1, len(samples) // 100)]


class _FirstAndLast:
    """A listener that notes when the first and the last row came."""

    def __init__(self) -> None:
        self.first, self.last = 0.0, 0.0

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Notes the time."""
        if done:
            self.last = time.monotonic()
            self.first = self.first or self.last

    def warn(self, text: str) -> None:
        """Does nothing."""

    def note(self, text: str) -> None:
        """Does nothing."""


def service(options: Options) -> Iterator[dict[str, Any]]:
    """Requests per second, latencies, and how each request ended, by the number of clients."""
    from scaling_service import kill_a_replica, loaded, running, unfinished

    with tempfile.TemporaryDirectory() as folder, running(options.engine, options.steps, folder) as address:
        for text in options.clients:
            killing = kill_a_replica(options.seconds / 2) if options.kill else None
            answers, latencies, spent = loaded(address, EXAMPLES / "chair", int(text), seconds=options.seconds)
            ordered = sorted(latencies) or [float("nan")]
            yield {
                "clients": int(text),
                "seconds": spent,
                "results_per_second": len(latencies) / spent,
                **{f"p{p}": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (50, 95, 99)},
                "answers": dict(answers),
                "lost": answers["lost"],
                "killed": killing.result() if killing is not None else 0,
                "unfinished_jobs": unfinished(folder),
                "store_bytes": stored(folder),
            }


def jobs(options: Options) -> Iterator[dict[str, Any]]:
    """Memory of the service's processes and bytes of its store over many jobs, of two clients."""
    from scaling_service import TITLES, loaded, running

    count = options.items or 200
    titles = TITLES if options.engine == "ray" else ()
    bytes_after: list[tuple[int, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        with running(options.engine, options.steps, folder, options.store_mib) as address, Memory(titles) as memory:

            def ended(done: int) -> None:
                bytes_after.append((done, stored(folder)))
                if done == count // 10:
                    early.append(memory.since(time.monotonic()))

            early: list[float] = []
            answers, _, spent = loaded(address, EXAMPLES / "chair", 2, jobs=count, ended=ended)
        yield {
            "jobs": count,
            "seconds": spent,
            "answers": dict(answers),
            "store_mib_at_most": max(size for _, size in bytes_after) / 2**20,
            "store_mib_limit": options.store_mib,
            "mib_growth_after_a_tenth": {title: memory.growth(title, early[0]) for title in memory.samples},
            "memory": {title: _thinned(samples) for title, samples in memory.samples.items()},
            "store": _thinned(bytes_after),
        }


def stored(folder: str) -> int:
    """Bytes of a store."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(root, name)).st_size
    return total


if __name__ == "__main__":
    sys.exit(main())
