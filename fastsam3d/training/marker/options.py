"""Settings of the training of the marking network, apart from it: help and mistyped flags need no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.flags import flag


@dataclass(frozen=True, kw_only=True)
class MarkerOptions:
    """Settings of the training of the marking network, on a CPU, from pictures that are made on the way."""

    output: str = flag(str, "run folder: renders.npy, checkpoint.pt, losses.jsonl and marker.safetensors")
    seed: int = flag(int, "seed of the weights and of the pictures", 0)
    minutes: float | None = flag(float, "length of the run, over all resumptions", None, one_of="length")
    steps: int | None = flag(int, "length of the run in steps, instead of minutes", None, one_of="length")
    pictures: int = flag(int, "pictures a step; two objects of each are marked, four times", 4)
    objects: int = flag(int, "number of procedural objects that are rendered, with two views each", 2000)
    learning_rate: float = flag(float, "largest learning rate of AdamW", 2e-3)
    average: float = flag(float, "decay of the averaged weights", 0.998)
