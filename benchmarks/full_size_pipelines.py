"""The pipelines that `full_size.py` compares, and how a method of the command line names one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fastsam3d.errors import UserError

GRAPHS = "graphs"


def parts_of(method: str) -> tuple[str, dict[str, Any], str, bool]:
    """Preset, changed settings, memory budget ("" for none) and whether with graphs, of `NAME+CHANGE:8gb:graphs`.

    Raises:
        UserError: two budgets.
    """
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


def ours(model: str, device: str, formats: Sequence[str], precision: str, memory: str) -> Any:
    """The pipeline as it is meant to run: weights cast once, fused operations; `memory` "" sets no budget."""
    from fastsam3d.sam3d.checkpoints.loading import load_pipeline

    budget = {"memory": memory} if memory else {}
    return load_pipeline(model, device, random_weights=True, formats=formats, precision=precision, **budget)


def upstream_like(model: str, device: str, formats: Sequence[str]) -> Any:
    """The same networks, executed as upstream executes them.

    fp32 weights that autocast casts at every call, but for the torsos of the latent generator and of the decoders,
    which upstream stores in fp16; separate operations; extraction on dense grids. No acceleration is attached to it:
    keys and values are projected and voxel tables built at every evaluation.
    """
    from dense_extraction import DenseExtraction

    from fastsam3d.modules.elementwise import set_fused
    from fastsam3d.sam3d.checkpoints.loading import load_pipeline

    half = torch.float16 if torch.device(device).type == "cuda" else None
    precision = "float32" if half is None else "float16"
    options = {"formats": formats, "precision": precision, "half_weights": False}
    pipeline = load_pipeline(model, device, random_weights=True, **options)
    torso = half or torch.float32
    pipeline.models["slat_generator"].reverse_fn.backbone.set_dtype(torso)
    for network in networks(pipeline):
        set_fused(network, False)
    for name, decoder in pipeline.models.items():
        if name.startswith("slat_decoder"):
            decoder.set_dtype(torso)
    if "slat_decoder_mesh" in pipeline.models:
        decoder = pipeline.models["slat_decoder_mesh"]
        # Set beside the modules, not among them; the method of the class is left alone.
        vars(decoder)["extract"] = DenseExtraction(decoder.mesh_resolution, pipeline.device).extract
    return pipeline


def networks(pipeline: Any) -> list[Any]:
    """All networks of a pipeline."""
    return [*pipeline.models.values(), *pipeline.condition_embedders.values()]
