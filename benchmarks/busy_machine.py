"""Seconds of one object on an idle machine, and on one where other processes keep the cores busy.

    python benchmarks/busy_machine.py                         idle, with 2 and with 4 busy processes: under ten minutes
    python benchmarks/busy_machine.py loads=0,2 seconds=60    a trial
    python benchmarks/busy_machine.py "methods=one thread,GOMP_SPINCOUNT=0,GOMP_SPINCOUNT=1000,threads=auto"
    python benchmarks/busy_machine.py report=out/busy_machine/busy_machine.json    writes the table into docs/threads.md

Every method is a process of its own, because OpenMP reads its settings once. The processes wait while another one
computes: methods run interleaved, one after the other in every round, and the order rotates. Both warm-up runs of a
process are left out; ratios are formed within a round. A method that has used more than its share of the time sits out
the next rounds. Nothing else should run meanwhile. See docs/threads.md.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from busy_machine_report import Run, markdown, summarise, write_between_markers
from busy_machine_worker import METHODS, is_method

from fastsam3d.basics.files import write_json, write_text
from fastsam3d.basics.options import (
    describe_options,
    option,
    optional_text,
    parse_options,
    prepare_directory,
    whole,
    words,
)
from fastsam3d.basics.threads.limits import usable_cores
from fastsam3d.basics.threads.load import LoadMeter
from fastsam3d.errors import UserError

COMMAND = "busy_machine"
ROOT = Path(__file__).resolve().parents[1]
VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_")
"""Beginnings of variables that are kept from the measured processes."""
SETTLING = 1.0
"""Seconds between the start of the busy processes and the first run."""
LEAST_ROUNDS = 2
START_SECONDS = 300


def loads(text: str) -> tuple[int, ...]:
    """Numbers of busy processes."""
    return tuple(whole(0)(word) for word in words(text))


def methods(text: str) -> tuple[str, ...]:
    """Names of methods."""
    found = tuple(words(text))
    if not found or not all(map(is_method, found)):
        raise ValueError(f"some of {', '.join(METHODS)}, or GOMP_SPINCOUNT=N, separated by commas")
    return found


@dataclass(frozen=True)
class Options:
    """Keys of the command line."""

    loads: tuple[int, ...] = option((0, 2, 4), loads, "numbers of busy processes")
    methods: tuple[str, ...] = option(METHODS, methods, "methods; also a variable of OpenMP alone, as GOMP_SPINCOUNT=N")
    seconds: int = option(420, whole(1), "time budget, shared evenly by the loads; starting the processes comes on top")
    longest: int = option(60, whole(1), "seconds after which a run is broken off")
    model: str = option("mini", str, "model")
    preset: str = option("balanced", str, "preset")
    output: str = option("out/busy_machine", str, "folder of busy_machine.json and busy_machine.md")
    report: str | None = option(None, optional_text, "a JSON file of an earlier run: only write it into the document")


@dataclass
class Worker:
    """A process that reconstructs an object whenever it is told to.

    Attributes:
        spent: seconds that its runs have taken under the present load.
    """

    method: str
    command: list[str]
    spent: float = 0.0
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the process, without waiting for it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
        self.process = subprocess.Popen(
            self.command, env=inherited, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answer(self, seconds: float) -> str | None:
        """The next line that it prints; None where it does not come in time.

        Raises:
            UserError: the process has ended.
        """
        assert self.process is not None and self.process.stdout is not None
        # A line is all that it prints before it waits again, so that no text stays behind in a buffer.
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return None
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f"the process of {self.method!r} has ended: see its message above.")
        return line

    def ask(self, seconds: float) -> dict[str, Any] | None:
        """One run; None, and the process is ended, where it takes longer."""
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.answer(seconds)
        if line is None:
            self.end()
            return None
        return json.loads(line)

    def end(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@dataclass
class Measurement:
    """One run of the script."""

    options: Options
    runs: list[Run] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Everything; the content of the JSON file."""
        folder, options = prepare_directory(self.options.output, COMMAND), self.options
        script = str(Path(__file__).with_name("busy_machine_worker.py"))
        self.workers = [
            Worker(method, [sys.executable, script, method, options.model, options.preset])
            for method in options.methods
        ]
        try:
            for busy in options.loads:
                self._start()
                with busy_processes(busy):
                    self._rounds(busy, options.seconds / len(options.loads))
                self._write(folder)
        finally:
            for worker in self.workers:
                worker.end()
        return self._write(folder)

    def _start(self) -> None:
        for worker in self.workers:
            worker.spent = 0.0
            # One after the other: they would keep each other waiting.
            if worker.process is None:
                worker.start()
                if worker.answer(START_SECONDS) is None:
                    raise UserError(f"{worker.method!r} was not ready in {START_SECONDS} seconds: end other programs.")

    def _rounds(self, busy: int, seconds: float) -> None:
        meter = LoadMeter(usable_cores(), own=lambda: 0.0)
        begin, number = time.perf_counter(), 0
        while number < LEAST_ROUNDS or time.perf_counter() - begin < seconds:
            turn = number % len(self.workers)
            for worker in [*self.workers[turn:], *self.workers[:turn]]:
                sits_out = number >= LEAST_ROUNDS and worker.spent > seconds / len(self.workers)
                if worker.process is not None and not sits_out:
                    self.runs.append(self._once(worker, busy, number, meter))
            if all(worker.process is None for worker in self.workers):
                return
            number += 1

    def _once(self, worker: Worker, busy: int, number: int, meter: LoadMeter) -> Run:
        meter.begin()
        begin = time.perf_counter()
        answer = worker.ask(self.options.longest)
        taken, others = time.perf_counter() - begin, meter.others()
        worker.spent += taken
        if answer is None:
            run = Run(busy, worker.method, number, None, 0.0, "", None)
        else:
            own = answer["processor_seconds"]
            others = None if others is None else max(others - own / taken, 0.0)
            threads = answer["device"].partition("(")[2].partition(" thread")[0]
            run = Run(busy, worker.method, number, answer["seconds"], own, threads, others)
        shown = "broken off" if run.seconds is None else f"{run.seconds:.2f} s, {run.processor_seconds:.2f} s of CPU"
        print(f"{busy} busy, round {number}, {run.method}: {shown}, threads {run.threads}", flush=True)
        return run

    def _write(self, folder: Path) -> dict[str, Any]:
        from importlib.metadata import version

        content = {
            "options": asdict(self.options),
            "environment": {"cores": len(usable_cores()), "torch": version("torch")},
            "runs": [asdict(run) for run in self.runs],
            "summary": summarise(self.runs),
        }
        write_json(folder / "busy_machine.json", content)
        write_text(folder / "busy_machine.md", markdown(content))
        return content


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that each keep a core busy, as long as the block lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(SETTLING)
        yield
    finally:
        for process in processes:
            with suppress(OSError):
                process.kill()
            process.wait()


def main(argv: Sequence[str]) -> int:
    """The command."""
    if any(word in ("-h", "--help", "help") for word in argv):
        print(f"{__doc__}\n{describe_options(Options, 'python benchmarks/busy_machine.py')}")
        return 0
    options = parse_options(Options, list(argv), COMMAND)
    if options.report is not None:
        document = ROOT / "docs" / "threads.md"
        write_between_markers(Path(options.report), document)
        print(f"wrote the table into {document}")
        return 0
    content = Measurement(options).run()
    print(f"\n{markdown(content)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
