"""Options of `bench`, in a module of their own: help and mistyped keys need no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.options import boolean, option, optional, optional_text, strengths, whole, words
from fastsam3d.evaluation.benchmark.experiments import SWEEPS
from fastsam3d.evaluation.metrics.surfaces import SURFACE_POINTS


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of the benchmark."""

    methods: tuple[str, ...] = option(
        ("off", "paper", "balanced", "fewer_steps"),
        words,
        "presets, preset files, fewer_steps[@NAME] (the control matched to NAME), or all",
    )
    objects: int = option(16, whole(1), "number of held-out procedural objects")
    scenes: int = option(1, whole(0), "number of held-out scenes of three objects")
    seed: int = option(7, whole(0), "chooses the objects and their noise")
    output: str = option("benchmark", str, "folder for records.jsonl, bench.json, bench.csv, bench.md and plots")
    guidance: tuple[float | None, ...] = option((None,), strengths, "guidance strength, or a list; null: the model's")
    steps: int | None = option(None, optional(whole(1)), "steps of both samplers without acceleration; null: their own")
    ablation: bool = option(False, boolean, "the eight choices among the three modules of paper, instead of methods")
    sweep: str | None = option(None, optional_text, f"one setting instead: {', '.join(SWEEPS)}")
    presets: tuple[str, ...] = option((), words, "of a sweep: the presets on which the setting is varied")
    device: str = option("cpu", str, "cpu or cuda")
    model: str = option("mini", str, "model to load")
    checkpoint_dir: str | None = option(None, optional_text, "folder with weights; null: those of the package")
    random_weights: bool = option(False, boolean, "untrained weights: speed only, quality means nothing")
    noise_row: bool = option(True, boolean, "also run off with other noise, the scale of fidelity")
    limit: bool = option(False, boolean, "also the converged solution, and every method's distance to it; slow")
    warmup: int = option(1, whole(1), "objects run before anything is timed")
    points: int = option(SURFACE_POINTS, whole(100), "surface points of the metrics")
    resume: bool = option(True, boolean, "go on from records in the output folder; false measures again")
    report: str | None = option(None, optional_text, "folder of an earlier run: write its report again")
    document: str | None = option(None, optional_text, "with report: Markdown file whose marked tables are replaced")
