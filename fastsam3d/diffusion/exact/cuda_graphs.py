"""Exact saving: records evaluations of the structure stage as CUDA graphs and replays them, see `graphs.replay`."""

from __future__ import annotations

from typing import Any

from fastsam3d.diffusion.capabilities import SPARSE_STRUCTURE
from fastsam3d.diffusion.exact.graphs.cuda_capture import CudaCapture
from fastsam3d.diffusion.exact.graphs.replay import GraphReplay
from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, StageTarget, register_saving


def _attach(target: StageTarget) -> None:
    # Shapes of the latent stage change with every object, and one object has too few evaluations for a recording.
    if target.kind != SPARSE_STRUCTURE:
        return
    host, stage, runner = target.host, target.stage, target.runner
    kept: list[Any] = [keeper for keeper in runner.keepers if hasattr(keeper, "hold")]
    replay = GraphReplay(stage, runner.state, CudaCapture(host.device), lambda: host.network_tensors(stage), kept)
    if target.inside:
        replay.refusal = f"{' and '.join(target.inside)} works inside the network"
    else:
        replay.refusal = host.replay_refusal() or replay.refusal
    target.pipeline.notes.append(replay.note)
    target.pipeline.resets.append(replay.reset_counts)
    target.pipeline.details[f"cuda_graphs.{stage}"] = replay.counts
    target.pipeline.at_removal.append(replay.release)
    if replay.refusal is None:
        runner.replay = replay
        target.keep(replay)


register_saving(
    ExactSaving(
        "cuda_graphs",
        "Structure network replayed as CUDA graphs. Faster where the host is slower than the card; not yet measured on "
        "a GPU. Memory: condition keys and values, and activations of an evaluation, stay from object to object. Rests "
        "where a technique works inside the network, and where a memory budget moves weights.",
        Nesting.EVALUATIONS,
        sites=("network_tensors",),
        attach_stage=_attach,
        default=False,
    )
)
