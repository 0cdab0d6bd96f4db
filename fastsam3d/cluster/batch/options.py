"""Options of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.options import boolean, number_from, option, optional, optional_text, whole

ENGINES = ("ray", "inline")


def engine(text: str) -> str:
    """Parses the name of an engine."""
    if text not in ENGINES:
        raise ValueError(f"one of {', '.join(ENGINES)}")
    return text


def workers(text: str) -> tuple[int, int] | None:
    """Parses `auto`, a number, or the least and the most number as 1-8."""
    if text == "auto":
        return None
    least, dash, most = text.partition("-")
    try:
        pair = int(least), int(most if dash else least)
    except ValueError:
        pair = 0, 0
    if not 1 <= pair[0] <= pair[1] <= 4096:
        raise ValueError("auto, a number such as 2, or the least and the most such as 1-8")
    return pair


@dataclass(frozen=True)
class BatchOptions:
    """Where a batch reads and writes, and on what it runs."""

    input: str | None = option(None, optional_text, "folder of photo folders, a pattern, or a .jsonl, .csv or .parquet")
    output: str | None = option(
        None, optional_text, "folder or address; gets a folder for each item, the index and the report"
    )
    engine: str = option("ray", engine, "ray, or inline: in this process, without Ray")
    workers: tuple[int, int] | None = option(
        None, workers, "auto: one for each device; a number; or least and most as 1-8"
    )
    gpus_per_worker: float = option(
        1.0, number_from(0.01, 64), "GPUs of each worker on CUDA; 0.5: two workers share one"
    )
    address: str | None = option(
        None, optional_text, "address of a Ray cluster; null: a local Ray, which is stopped at the end"
    )
    resume: bool = option(True, boolean, "compute only what is missing or failed; false: compute everything again")
    items_per_task: int | None = option(
        None, optional(whole(1)), "items that go to a worker together; null: as many as fit the number of items"
    )
    store_mib: int = option(256, whole(80), "memory of a local Ray's object store, MiB, for pictures that wait")

    @property
    def least_and_most(self) -> tuple[int, int]:
        """Returns the least and most number of workers; if none was given, one for each device."""
        return self.workers if self.workers is not None else (devices(),) * 2


def devices() -> int:
    """Counts the GPUs of this machine, or without a GPU the cores that this process may use."""
    import torch

    from fastsam3d.basics.threads.limits import core_limits

    return torch.cuda.device_count() if torch.cuda.is_available() else core_limits().threads
