"""Settings of the training programs, in a module of their own: help and mistyped flags need no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.flags import flag
from fastsam3d.basics.options import boolean, number_from, option, whole

STAGES = {"data": 0.0, "ss_vae": 0.07, "slat_vae": 0.15, "ss_flow": 0.48, "slat_flow": 0.30, "export": 0.0}
"""Stages in order, with the share of the minutes that each takes of a whole run."""


def _stage(text: str) -> str:
    if text not in (*STAGES, "all"):
        raise ValueError(f"all, {', '.join(STAGES)}")
    return text


@dataclass(frozen=True)
class RecipeOptions:
    """Options of a whole training, or of one stage with the settings that it has there."""

    stage: str = option("all", _stage, f"{', '.join(STAGES)}, or all of them in this order")
    output: str = option("runs", str, "folder of checkpoints, logs and data")
    minutes: float = option(180.0, number_from(0.001, 1e5), "training time; a whole run shares it between its stages")
    objects: int = option(24_000, whole(0), "procedural training objects")
    workers: int = option(1, whole(0), "processes that generate them")
    seed: int = option(0, whole(0), "of weights and batches")
    device: str = option("cpu", str, "cpu or cuda")
    model: str = option("mini", str, "file in configs/model that gives the sizes")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Choice of the procedural objects that are written to shards."""

    output: str = flag(str, "directory of the shards")
    objects: int = flag(int, "how many", 24_000)
    first_seed: int = flag(int, "seed of the first one", 0)
    views: int = flag(int, "pictures of each", 2)
    workers: int = flag(int, "processes that make them", 1)


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Common settings of every stage's training: its objects, its folder, what it trains, and for how long."""

    data: str | None = flag(str, "folder of shards made by the program data, for a CPU", None)
    objects: int = flag(int, "objects made on the device, without --data", 100_000)
    workers: int = flag(int, "processes that make their tables", 1)
    device: str = flag(str, "cpu or cuda", "cpu")
    output: str = flag(str, "run folder: checkpoint.pt and losses.jsonl")
    model: str = flag(str, "file in configs/model that gives the sizes", "mini")
    seed: int = flag(int, "of weights and batches", 0)
    minutes: float | None = flag(float, "length of the run, over all resumptions", None, one_of="length")
    steps: int | None = flag(int, "length of the run in steps, instead of minutes", None, one_of="length")


@dataclass(frozen=True, kw_only=True)
class SparseStructureVaeOptions(StageOptions):
    """Settings of the sparse-structure VAE."""

    batch: int = flag(int, "objects a step", 16)
    learning_rate: float = flag(float, "largest learning rate of AdamW", 3e-3)
    kl_weight: float = flag(float, "of the Kullback-Leibler loss", 5e-4)
    keep_decoder: bool = flag(boolean, "keep the shipped decoder of --model and train an encoder for it", False)


@dataclass(frozen=True, kw_only=True)
class SparseStructureFlowOptions(StageOptions):
    """Settings of the sparse-structure flow."""

    vae: str = flag(str, "checkpoint of the program sparse-structure-vae")
    start_shipped: bool = flag(boolean, "start from the shipped weights of --model and keep its constants", False)
    photographic: float = flag(float, "share of pictures drawn with the looks of photographs, 0 to 1", 0.6)
    images: int = flag(int, "images a step", 16)
    noises: int = flag(int, "noises and times an image", 4)
    learning_rate: float = flag(float, "largest learning rate of AdamW", 8e-4)
    matrix_learning_rate: float = flag(float, "Muon's peak; 0 switches it off", 1.5e-3)
    average: float = flag(float, "decay of the averaged weights", 0.998)
    compile: bool = flag(boolean, "torch.compile: slow to start, then fast", False)


@dataclass(frozen=True, kw_only=True)
class StructuredLatentVaeOptions(StageOptions):
    """Settings of the structured-latent VAE."""

    start: str | None = flag(str, "checkpoint of an earlier run whose blocks to start from", None)
    statistics: bool = flag(boolean, "only statistics and evaluation of a finished run", False, one_of="length")
    batch: int = flag(int, "objects a step", 2)
    learning_rate: float = flag(float, "largest learning rate of AdamW", 2e-3)
    matrix_learning_rate: float = flag(float, "Muon's peak; 0 switches it off", 2e-3)


@dataclass(frozen=True, kw_only=True)
class StructuredLatentFlowOptions(StageOptions):
    """Settings of the structured-latent flow."""

    start: str | None = flag(str, "checkpoint of an earlier run to start from", None)
    embedder: str | None = flag(str, "checkpoint of the first stage, to start its embedder from", None)
    images: int = flag(int, "images a step", 4)
    noises: int = flag(int, "noises and times an image", 2)
    learning_rate: float = flag(float, "largest learning rate of AdamW", 8e-4)
    matrix_learning_rate: float = flag(float, "Muon's peak; 0 switches it off", 1.5e-3)
    average: float = flag(float, "decay of the averaged weights", 0.998)


@dataclass(frozen=True, kw_only=True)
class GaussianDecoderOptions:
    """Settings of the Gaussian decoder's training, on a CPU, from objects that are made on the way."""

    output: str = flag(str, "run folder: checkpoint.pt and losses.jsonl")
    trunk: str | None = flag(str, "weights of a mesh decoder whose trunk to start from (.safetensors)", None)
    start_shipped: bool = flag(boolean, "start from the shipped weights of --model, instead of --trunk", False)
    model: str = flag(str, "file in configs/model that gives the sizes", "mini")
    seed: int = flag(int, "of weights and batches", 0)
    minutes: float | None = flag(float, "length of the run, over all resumptions", None, one_of="length")
    steps: int | None = flag(int, "length of the run in steps, instead of minutes", None, one_of="length")
    batch: int = flag(int, "objects a step", 2)
    learning_rate: float = flag(float, "largest learning rate of AdamW", 3e-3)
    matrix_learning_rate: float = flag(float, "Muon's peak; 0 switches it off", 2e-3)
    average: float = flag(float, "decay of the averaged weights", 0.99)


@dataclass(frozen=True, kw_only=True)
class StructuredLatentQualityOptions:
    """Settings of the measurement of the second stage alone."""

    vae: str = flag(str, "checkpoint of the program structured-latent-vae")
    flow: str = flag(str, "checkpoint of the program structured-latent-flow")
    objects: int = flag(int, "held-out objects", 8)
    model: str = flag(str, "file in configs/model that gives the sizes", "mini")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The runs whose weights are exported."""

    ss_vae: str | None = flag(str, "run folder", None)
    ss_flow: str | None = flag(str, "run folder", None)
    slat_vae: str | None = flag(str, "run folder", None)
    slat_flow: str | None = flag(str, "run folder", None)
    gaussians: str | None = flag(str, "run folder", None)
    marker: str | None = flag(str, "run folder", None)
    output: str = flag(str, "folder of the weights", "fastsam3d/mini")


@dataclass(frozen=True, kw_only=True)
class PredictorOptions:
    """Settings of the training of a predictor of attention maps."""

    output: str = flag(str, "run folder: checkpoint.pt, losses.jsonl and predictor.safetensors")
    device: str = flag(str, "cpu or cuda", "cpu")
    seed: int = flag(int, "of weights and batches", 0)
    minutes: float | None = flag(float, "length of the run, over all resumptions", None, one_of="length")
    steps: int | None = flag(int, "length of the run in steps, instead of minutes", None, one_of="length")
    learning_rate: float = flag(float, "largest learning rate of AdamW", 2e-3)
    matrix_learning_rate: float = flag(float, "Muon's peak; 0 switches it off", 0.0)
    weight_decay: float = flag(float, "of both", 0.01)
    warmup: float = flag(float, "share of the run in which the rate rises", 0.03)
    clip: float = flag(float, "norm that gradients are scaled down to", 1.0)
    average: float = flag(float, "decay of the averaged weights", 0.995)
    without_boxes: float = flag(float, "share of the steps in which boxes are left out, where they are optional", 0.25)
    measure_every: int = flag(int, "steps from one measurement on held-out batches to the next", 100)
    held_out_batches: int = flag(int, "batches of a measurement", 4)
