"""Measures batches and the service on this machine.

python benchmarks/scaling.py objects                     # real objects with 1 and 2 workers, in turns
python benchmarks/scaling.py engine items=100000         # the engine alone: items that sleep for 5 ms, 8 workers
python benchmarks/scaling.py service seconds=60          # a service under 1 to 64 clients

Each prints one line of JSON a measurement, with the load of the machine, and with picture=FILE draws them.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_work import SleepingWork

from fastsam3d.basics.options import option, optional_text, parse_options, whole, words
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

    items: int | None = option(None, whole(1), "items: of `objects` 12, of `engine` 100000")
    rounds: int = option(2, whole(1), "of `objects`: each number of workers is measured so often, in turns")
    steps: int = option(12, whole(1), "of `objects` and `service`: steps of each stage")
    workers: int = option(8, whole(1), "of `engine`")
    engine: str = option("ray", str, "of `engine` and `service`: ray or inline")
    milliseconds: int = option(5, whole(0), "of `engine`: that an item sleeps")
    seconds: int = option(60, whole(1), "of `service`: that each number of clients is measured")
    clients: tuple[str, ...] = option(("1", "4", "16", "64"), words, "of `service`")
    picture: str | None = option(None, optional_text, "a PNG of the measurements")


def main() -> int:
    """Runs the measurement that the first word names."""
    kinds: dict[str, Callable[[Options], Iterator[dict[str, Any]]]] = {
        "objects": objects,
        "engine": engine,
        "service": service,
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
    """Milliseconds of the engine an item, and the memory of the driver."""
    count = options.items or 100_000
    items = [Item(f"item_{n:06d}", f"/photos/{n:06d}/image.png") for n in range(count)]
    work = SleepingWork(options.milliseconds / 1000)
    workers = 1 if options.engine == "inline" else options.workers
    with tempfile.TemporaryDirectory() as folder:
        settings = BatchOptions(output=folder, engine=options.engine, workers=(workers, workers))
        memory: list[tuple[float, float]] = []
        start = time.monotonic()
        listener = _Memory(memory, start)
        run_items(settings, items, work, {}, listener)
        begun = listener.first or start
        spent = time.monotonic() - begun
        sizes = {path.name: path.stat().st_size for path in Path(folder).iterdir() if path.is_file()}
    slept = count * work.seconds / workers
    first = memory[min(len(memory) - 1, max(1, len(memory) // 20))][1]
    yield {
        "items": count,
        "workers": workers,
        "seconds": spent,
        "seconds_to_first_row": begun - start,
        "engine_ms_per_item": 1000 * (spent - slept) / count,
        "driver_mib_at_start": first,
        "driver_mib_growth": max(mib for _, mib in memory) - first,
        "memory": memory[:: max(1, len(memory) // 100)],
        "sizes": sizes,
    }


class _Memory:
    """A listener that notes when the first row came, and the resident memory of this process every second."""

    def __init__(self, found: list[tuple[float, float]], start: float) -> None:
        self._found, self._start, self._next = found, start, 0.0
        self.first: float | None = None

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Notes the memory."""
        now = time.monotonic()
        if done and self.first is None:
            self.first = now
        if now >= self._next:
            self._next = now + 1.0
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self._found.append((now - self._start, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))

    def warn(self, text: str) -> None:
        """Does nothing."""

    def note(self, text: str) -> None:
        """Does nothing."""


def service(options: Options) -> Iterator[dict[str, Any]]:
    """Requests per second, latencies, and how each request ended, by the number of clients."""
    from scaling_service import loaded, running

    with tempfile.TemporaryDirectory() as folder, running(options.engine, options.steps, folder) as address:
        for text in options.clients:
            answers: Counter[str] = Counter()
            latencies: list[float] = []
            lock = threading.Lock()
            end = time.monotonic() + options.seconds
            threads = [
                threading.Thread(target=loaded, args=(address, end, EXAMPLES / "chair", answers, latencies, lock))
                for _ in range(int(text))
            ]
            start = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            spent = time.monotonic() - start
            ordered = sorted(latencies) or [float("nan")]
            yield {
                "clients": int(text),
                "seconds": spent,
                "results_per_second": len(latencies) / spent,
                **{f"p{p}": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (50, 95, 99)},
                "answers": dict(answers),
                "lost": answers["lost"],
                "store_bytes": sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()),
            }


def draw(kind: str, measured: list[dict[str, Any]], path: str) -> None:
    """Draws a measurement."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    if kind == "engine":
        seconds, mib = zip(*measured[0]["memory"], strict=True)
        axes.plot(seconds, mib)
        axes.set(xlabel="seconds", ylabel="memory of the driver, MiB", ylim=(0, None))
    elif kind == "service":
        clients = [one["clients"] for one in measured]
        for name in ("p50", "p95", "p99"):
            axes.plot(clients, [one[name] for one in measured], marker="o", label=name)
        axes.set(xlabel="clients", ylabel="seconds until the result", xscale="log", ylim=(0, None))
        axes.legend()
    else:
        runs = [one for one in measured if "workers" in one]
        axes.scatter([one["workers"] for one in runs], [one["objects_per_second"] for one in runs])
        axes.set(xlabel="workers", ylabel="objects per second", xticks=[1, 2], ylim=(0, None))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
