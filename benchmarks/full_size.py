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
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from fixed_object import FixedObject, fill_zero_matrices
from full_size_report import Run, console_line, document, markdown, write_between_markers

from fastsam3d.cli.options import (
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
from fastsam3d.pipeline.files import write_json, write_text

UPSTREAM_LIKE, GRAPHS = "upstream-like", "graphs"
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
        self.picture = example_picture()

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
            if key == UPSTREAM_LIKE:
                pipeline = upstream_like(self.options, self.device)
            else:
                pipeline = ours(self.options, self.dtype, memory or "none")
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


def ours(options: Options, dtype: torch.dtype | None, memory: str) -> Any:
    """The pipeline as it is meant to run: weights cast once, fused operations."""
    from fastsam3d.pipeline.loading import load_pipeline

    extra = {} if memory == "none" else {"memory": memory}
    return load_pipeline(
        options.model,
        options.device,
        random_weights=True,
        formats=options.formats,
        autocast=dtype,
        **extra,
    )


def upstream_like(options: Options, device: torch.device) -> Any:
    """The same networks, executed as upstream executes them.

    fp32 weights that autocast casts at every call, but for the torsos of the latent generator and of the decoders,
    which upstream stores in fp16; separate operations; extraction on dense grids. No acceleration is attached to it:
    keys and values are projected and voxel tables built at every evaluation.
    """
    from dense_extraction import DenseExtraction

    from fastsam3d.models.elementwise import set_fused
    from fastsam3d.pipeline.loading import load_pipeline

    half = torch.float16 if device.type == "cuda" else torch.float32
    pipeline = load_pipeline(
        options.model,
        options.device,
        random_weights=True,
        formats=options.formats,
        autocast=torch.float16 if device.type == "cuda" else None,
        half_weights=False,
    )
    pipeline.models["slat_generator"].reverse_fn.backbone.set_dtype(half)
    for network in networks(pipeline):
        set_fused(network, False)
    for name, decoder in pipeline.models.items():
        if name.startswith("slat_decoder"):
            decoder.set_dtype(half)
    if "slat_decoder_mesh" in pipeline.models:
        decoder = pipeline.models["slat_decoder_mesh"]
        # Set beside the modules, not among them; the method of the class is left alone.
        vars(decoder)["extract"] = DenseExtraction(decoder.mesh_resolution, device).extract
    return pipeline


def measured(
    pipeline: Any, method: str, voxels: int, number: int, picture: tuple[Any, Any], formats: tuple[str, ...]
) -> Run:
    """One run of a method on an object of fixed size."""
    from fastsam3d.acceleration import accelerate
    from fastsam3d.evaluation.flops import run_flops

    preset, changes, _, graphs = parts_of(method)
    preset = "off" if preset == UPSTREAM_LIKE else preset
    watch = MemoryWatch(pipeline)
    first_object = None
    with FixedObject(pipeline, voxels), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with accelerate(pipeline, preset, **changes) as acceleration:

            def timed() -> tuple[Any, float]:
                synchronize(pipeline.device)
                start = time.perf_counter()
                result = pipeline.run(*picture, seed=0, formats=formats, progress=watch)
                synchronize(pipeline.device)
                return result, time.perf_counter() - start

            if graphs:  # two objects that record, before the one that counts: recordings serve all that follow
                first_object = timed()[1]
                timed()
                acceleration.reset_report()
            result, seconds = timed()
            report = acceleration.report()
    flops = run_flops(pipeline, result.structure.coords, report, formats=formats)
    stages = report.stages
    return Run(
        method=method,
        voxels=len(result.structure.coords),
        asked=voxels,
        round=number,
        seconds=seconds,
        stage_seconds=dict(result.stage_seconds),
        stage_tflop=dict(flops.stages),
        stage_memory=watch.peaks,
        voxels_kept=report.voxels_kept,
        evaluations={name: stages[name].evaluations for name in stages},
        tokens_kept={name: stages[name].tokens_kept for name in stages},
        faces=0 if result.mesh is None else len(result.mesh.faces),
        recording_seconds=first_object,
        notes=report.notes,
    )


def parts_of(method: str) -> tuple[str, dict[str, Any], str, bool]:
    """Preset, changed settings, memory budget ("" for none) and whether with graphs, of `NAME+CHANGE:8gb:graphs`."""
    name, *words = method.split(":")
    preset, *changes = name.split("+")
    graphs = GRAPHS in words
    budgets = [word for word in words if word != GRAPHS]
    if len(budgets) > 1:
        raise UserError(f"{method} names two memory budgets, {' and '.join(budgets)}: leave one out.")
    settings = dict(changed(change) for change in changes)
    return preset, settings | ({"exact.cuda_graphs": True} if graphs else {}), "".join(budgets), graphs


def changed(text: str) -> tuple[str, Any]:
    """One change of a preset, `group.key=value`."""
    from omegaconf import OmegaConf

    key, _, value = text.partition("=")
    return key, OmegaConf.create(f"value: {value}")["value"]


class MemoryWatch:
    """Peak memory of every stage, in bytes, without the weights of other pipelines on the card. CUDA only."""

    def __init__(self, pipeline: Any) -> None:
        self.device = pipeline.device
        self.peaks: dict[str, int] = {}
        self._foreign = 0
        if self.device.type == "cuda":
            self._foreign = torch.cuda.memory_allocated(self.device) - device_bytes(pipeline)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Receives progress: stages begin with (0, 1) and end with (1, 1)."""
        if self.device.type != "cuda" or total != 1:
            return
        if done == 0:
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self.peaks[stage] = torch.cuda.max_memory_allocated(self.device) - self._foreign


def networks(pipeline: Any) -> list[Any]:
    """All networks of a pipeline."""
    return [*pipeline.models.values(), *pipeline.condition_embedders.values()]


def weight_bytes(pipeline: Any) -> int:
    """Bytes of all weights and buffers, wherever they are."""
    return sum(t.nbytes for network in networks(pipeline) for t in (*network.parameters(), *network.buffers()))


def device_bytes(pipeline: Any) -> int:
    """Bytes of weights, buffers and kept grids that are on the pipeline's device."""
    kept = [t for network in networks(pipeline) for t in (*network.parameters(), *network.buffers())]
    grids = [vars(network).get("extract") for network in networks(pipeline)]
    kept += [t for extract in grids if extract is not None for t in extract.__self__.tensors()]
    return sum(t.nbytes for t in kept if t.device.type == pipeline.device.type)


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device, collect: bool = True) -> None:
    """Gives unused memory back, after a run that failed for lack of it."""
    import gc

    if collect:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def example_picture() -> tuple[Any, Any]:
    """A bundled picture and its mask."""
    import numpy as np
    from PIL import Image

    folder = ROOT / "examples" / "chair"
    image = np.asarray(Image.open(folder / "image.png").convert("RGB"))
    mask = Image.open(folder / "0.png")
    alpha = np.asarray(mask.getchannel("A") if mask.mode == "RGBA" else mask.convert("L"))
    return image, alpha > alpha.max() / 2


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers belong to."""
    values: dict[str, Any] = {"python": sys.version.split()[0], "torch": torch.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        values |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
        try:
            import triton

            values["triton"] = triton.__version__
        except ImportError:
            values["triton"] = "none"
    else:
        values["device"] = "cpu"
    return values


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
