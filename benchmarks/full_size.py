"""Speed and memory of the model at its official size, on a GPU, with random weights.

    python benchmarks/full_size.py                                  26,000 and 10,000 voxels, all methods
    python benchmarks/full_size.py methods=exact,balanced voxels=26000 seconds=60
    python benchmarks/full_size.py methods=balanced:8gb             within a memory budget
    python benchmarks/full_size.py methods=balanced,balanced:graphs,exact,exact:graphs      with CUDA graphs and without
    python benchmarks/full_size.py report=out/full_size/full_size.json       writes the table into docs/full_size.md
    python benchmarks/full_size.py device=cpu model=mini voxels=1000 steps=3 seconds=20        a trial of the script

Methods run interleaved, one after the other in every round, each warmed up, the device waited for at the end of every
stage; ratios are formed within a round. Partial results are written after every run. See docs/full_size.md.
"""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from fixed_object import fill_zero_matrices
from full_size_measurement import environment, example_picture, free, measured, synchronize, weight_bytes
from full_size_pipelines import networks, ours, parts_of, upstream_like
from full_size_report import UPSTREAM_LIKE, Run, console_line, document, markdown, write_between_markers

from fastsam3d.basics.files import write_json, write_text
from fastsam3d.basics.options import (
    boolean,
    describe_options,
    option,
    optional_text,
    parse_options,
    prepare_directory,
    whole,
    words,
)
from fastsam3d.errors import UserError

COMMAND = "full_size"
ROOT = Path(__file__).resolve().parents[1]


def sizes(text: str) -> tuple[int, ...]:
    """Numbers of voxels."""
    return tuple(whole(1)(word) for word in words(text))


@dataclass(frozen=True)
class Options:
    """Keys of the command line."""

    model: str = option("sam3d", str, "sam3d, or mini for a trial")
    device: str = option("cuda", str, "cuda, cuda:1 or cpu")
    precision: str = option("float16", str, "float16 (the official pipeline's), bfloat16 or float32")
    methods: tuple[str, ...] = option(
        ("exact", "balanced", UPSTREAM_LIKE, "fast", "paper", "balanced:8gb"),
        words,
        "in order of importance; NAME:8gb within a budget, NAME:graphs with CUDA graphs, "
        "NAME+exact.joint_branches=false with a change",
    )
    voxels: tuple[int, ...] = option((26_000, 10_000), sizes, "sizes of the object, in order of importance")
    seconds: int = option(150, whole(1), "time budget, building and warm-up included")
    rounds: int = option(5, whole(1), "most rounds of all methods")
    steps: int = option(0, lambda text: whole(0)(text), "sampler steps; 0: the model's own")
    formats: tuple[str, ...] = option(("mesh",), words, "what is decoded")
    probes: bool = option(True, boolean, "measure the card's ceilings and single steps too (CUDA)")
    output: str = option("out/full_size", str, "folder of full_size.json and full_size.md")
    report: str | None = option(None, optional_text, "a JSON file of an earlier run: only write it into the document")


@dataclass
class State:
    """What is known so far; written to JSON after every run."""

    options: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    build: dict[str, Any] = field(default_factory=dict)
    probes: dict[str, Any] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    unfinished: str | None = None


class Benchmark:
    """One run of the script."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.begin = time.perf_counter()
        self.folder = prepare_directory(options.output, COMMAND)
        self.device = torch.device(options.device)
        self.dtype = None if options.precision == "float32" else getattr(torch, options.precision)
        self.state = State(asdict(options))
        self.pipelines: dict[str, Any] = {}
        self.picture = example_picture(ROOT / "examples" / "chair")

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.options.seconds - (time.perf_counter() - self.begin)

    def say(self, text: str) -> None:
        """One line on stdout, at once."""
        print(f"[{time.perf_counter() - self.begin:6.1f} s] {text}", flush=True)

    def run(self) -> State:
        """Everything, until the time is up."""
        self.state.environment = environment(self.device)
        self.say(", ".join(f"{key} {value}" for key, value in self.state.environment.items()))
        taken: dict[tuple[str, int], float] = {}
        failed: set[tuple[str, int]] = set()
        for number in range(self.options.rounds + 1):  # round 0 warms up
            for voxels in self.options.voxels:
                for method in self.options.methods:
                    key = (method, voxels)
                    if key in failed:
                        continue
                    if 1.1 * taken.get(key, 0.0) + 1.0 > self.left:
                        self.state.unfinished = self.state.unfinished or f"round {number}, {method} at {voxels} voxels"
                        continue
                    seconds = self._once(method, voxels, number)
                    if seconds is None:
                        failed.add(key)
                    else:
                        taken[key] = seconds
            if number == 1 and self.options.probes and self.device.type == "cuda" and self.left > 12:
                self._probe()
            if self.left < 1.0:
                break
        self._write()
        return self.state

    def _once(self, method: str, voxels: int, number: int) -> float | None:
        """One run; its seconds, None where it failed."""
        start = time.perf_counter()
        try:
            pipeline = self._pipeline(method)
            run = measured(pipeline, method, voxels, number, self.picture, self.options.formats)
            self.state.runs.append(run)
            self.say(console_line(run))
        except Exception as error:
            self.state.failures.append(
                {"method": method, "voxels": voxels, "round": number, "error": traceback.format_exc()}
            )
            self.say(f"FAILED {method} at {voxels} voxels: {type(error).__name__}: {str(error).splitlines()[:1]}")
            traceback.print_exc()
            free(self.device)
            return None
        finally:
            self._write()
        return time.perf_counter() - start

    def _pipeline(self, method: str) -> Any:
        """The pipeline that a method runs on; built at first use."""
        name, _, memory, _ = parts_of(method)
        key = UPSTREAM_LIKE if name == UPSTREAM_LIKE else memory or "ours"
        if key not in self.pipelines:
            start = time.perf_counter()
            asked = self.options.model, self.options.device, self.options.formats
            pipeline = upstream_like(*asked) if key == UPSTREAM_LIKE else ours(*asked, self.options.precision, memory)
            if self.options.steps:
                for sampler in ("ss_generator", "slat_generator"):
                    pipeline.models[sampler].inference_steps = self.options.steps
            filled = fill_zero_matrices(pipeline)
            synchronize(self.device)
            self.pipelines[key] = pipeline
            self.state.build[key] = {
                "seconds": time.perf_counter() - start,
                "parameters": sum(p.numel() for network in networks(pipeline) for p in network.parameters()),
                "weight_bytes": weight_bytes(pipeline),
                "filled_matrices": filled,
            }
            self.say(f"built {key}: {self.state.build[key]}")
        return self.pipelines[key]

    def _probe(self) -> None:
        import gpu_probes

        pipeline = self.pipelines.get("ours")
        dtype = self.dtype or torch.float32
        cells = self.options.voxels[0] // 4
        shapes = {
            "structure self 4096x4096": (4096, 4096),
            "structure cross 4096x7528": (4096, 7528),
            f"latent self {cells}x{cells}": (cells, cells),
            f"latent cross {cells}x5496": (cells, 5496),
        }
        jobs = {
            "ceilings": lambda: gpu_probes.ceilings(self.device, dtype),
            "attention": lambda: gpu_probes.attention(self.device, dtype, shapes),
        }
        if pipeline is not None:
            inputs = pipeline.preprocess(*self.picture)
            condition = pipeline.embed_condition("sparse_structure", inputs)
            jobs["structure step, ms"] = lambda: gpu_probes.structure_step(pipeline, condition)
        for name, job in jobs.items():
            if self.left < 5:
                return
            try:
                self.state.probes[name] = job()
                self.say(f"probe {name}: {self.state.probes[name]}")
            except Exception as error:
                self.state.probes[name] = {"error": str(error).splitlines()[:1]}
                self.say(f"FAILED probe {name}: {error}")
                free(self.device)
        self._write()

    def _write(self) -> None:
        content = document(self.state)
        write_json(self.folder / "full_size.json", content)
        write_text(self.folder / "full_size.md", markdown(content))


def main(argv: list[str]) -> int:
    """The command."""
    if any(word in ("-h", "--help", "help") for word in argv):
        print(f"{__doc__}\n{describe_options(Options, 'python benchmarks/full_size.py')}")
        return 0
    options = parse_options(Options, argv, COMMAND)
    if options.report is not None:
        path = write_between_markers(Path(options.report), ROOT / "docs" / "full_size.md")
        print(f"wrote the table into {path}")
        return 0
    state = Benchmark(options).run()
    print()
    print(markdown(document(state)))
    return 0 if state.runs else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
