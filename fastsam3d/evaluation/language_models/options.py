"""Options of `mllm bench`, in a module of their own: help and mistyped keys need no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.options import boolean, option, optional_text, whole, whole_numbers, words


@dataclass(frozen=True)
class PruningBenchmarkOptions:
    """Options of the benchmark of pruned language models."""

    output: str = option("mllm_bench", str, "folder for bench.json, bench.md and scores.png")
    methods: tuple[str, ...] = option(("all",), words, "presets and preset files; all: every row of the table")
    rooms: int = option(112, whole(1), "held-out rooms of 30 to 100 objects")
    questions: int = option(18, whole(1), "questions about each room")
    seed: int = option(0, whole(0), "chooses the rooms and their questions")
    model: str | None = option(None, optional_text, "folder of a small model that you trained; null: the shipped one")
    predictors: str | None = option(
        None, optional_text, "folder of more predictors, predictor_ROWS.safetensors; each adds two rows"
    )
    timing: bool = option(True, boolean, "also measure milliseconds; the machine should be idle")
    objects: tuple[int, ...] = option((100, 300, 1000), whole_numbers(1), "numbers of objects that are timed")
    batches: tuple[int, ...] = option((1, 8), whole_numbers(1), "batch sizes that are timed")
    rounds: int = option(7, whole(1), "rounds of the timing")
    device: str = option("cpu", str, "cpu or cuda")
