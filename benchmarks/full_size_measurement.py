"""One run of `full_size.py`: its seconds, operations and memory, and the machine that they belong to."""

from __future__ import annotations

import gc
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixed_object import FixedObject
from full_size_pipelines import networks, parts_of
from full_size_report import UPSTREAM_LIKE, Run


def measured(
    pipeline: Any, method: str, voxels: int, number: int, picture: tuple[Any, Any], formats: Sequence[str]
) -> Run:
    """One run of a method on an object of fixed size.

    Args:
        pipeline: what the method runs on; nothing stays attached to it.
        method: as `parts_of` reads it.
        voxels: of the object.
        number: of the round.
        picture: image and mask.
        formats: what is decoded.
    """
    from fastsam3d.acceleration.handle import accelerate

    preset, changes, _, graphs = parts_of(method)
    preset = "off" if preset == UPSTREAM_LIKE else preset
    watch = MemoryWatch(pipeline)
    first_object = None
    with FixedObject(pipeline, voxels), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with accelerate(pipeline, preset, **changes) as acceleration:

            def timed(given: Sequence[Any] = picture) -> tuple[Any, float]:
                synchronize(pipeline.device)
                start = time.perf_counter()
                result = pipeline.run(*given, seed=0, formats=formats, progress=watch)
                synchronize(pipeline.device)
                return result, time.perf_counter() - start

            if graphs:  # two objects that record, before the one that counts: recordings serve all that follow
                # Their picture is another one, because encodings of the newest pictures are kept.
                mirrored = [np.ascontiguousarray(array[:, ::-1]) for array in picture]
                first_object = timed(mirrored)[1]
                timed(mirrored)
                acceleration.reset_report()
            result, seconds = timed()
            report = acceleration.report()
    stages = report.stages
    return Run(
        method=method,
        voxels=len(result.structure.coords),
        asked=voxels,
        round=number,
        seconds=seconds,
        stage_seconds=dict(result.stage_seconds),
        stage_tflop={name: part.computed / 1e12 for name, part in report.network_flops.items()},
        stage_memory=watch.peaks,
        voxels_kept=report.voxels_kept,
        evaluations={name: stages[name].evaluations for name in stages},
        tokens_kept={name: stages[name].tokens_kept for name in stages},
        faces=0 if result.mesh is None else len(result.mesh.faces),
        recording_seconds=first_object,
        notes=report.notes,
    )


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


def free(device: torch.device) -> None:
    """Gives unused memory back, after a run that failed for lack of it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def example_picture(folder: Path) -> tuple[Any, Any]:
    """Picture uint8 `[H, W, 3]` and mask bool `[H, W]` of a bundled example, `image.png` and `0.png` of its folder."""
    import numpy as np
    from PIL import Image

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
