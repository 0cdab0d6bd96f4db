"""Savings that change no result: the same function, computed with less work.

- *Zero condition.* The unconditional pass sees zeros for a condition. All its keys are then equal, the softmax is
  uniform, and cross-attention gives one constant vector, `W_o b_v + b_o`, to every token: queries, keys, values and
  attention need not be computed.
- *Condition cache.* The condition does not change over a run; its keys and values are projected once a block.
- *Shared prefix.* Up to the first cross-attention no condition has entered: conditional and unconditional pass compute
  the same there, hence once.
- *Index cache.* The voxels of an object do not change; neighbour, pooling and window tables are built once, for the
  generator and the decoders.
- *Joint branches.* Small networks wait for weights more than they compute; both branches go through in one pass.
- *Attention without masks.* Where a pipeline keeps windows or objects apart by a mask over all pairs of tokens, only
  the allowed pairs are computed.
- *Sparse surface.* The decoder's surface is extracted at the voxels, where a pipeline does so on dense grids.
- *CUDA graphs.* Evaluations of the structure stage are recorded once and replayed, see `graph_replay`.
- *Shared features.* A picture is encoded once for both stages and for all objects in it.
- *Time tables*, *occupied taps*, *cast weights* and *oneDNN*: see `exact_time`, `exact_taps`, `exact_weights`,
  `exact_onednn`.

Values of a run live as long as the run, voxel tables until the object is done, cast weights until it is all taken off.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique, register
from fastsam3d.diffusion.vocabulary import STAGES, TechniqueConfig, setting


@dataclass(frozen=True)
class ExactConfig(TechniqueConfig):
    """Switches of the exact savings. Equal results up to rounding; memory is the only price."""

    zero_condition: bool = setting(
        True, "Constant cross-attention in the unconditional pass. Faster; no cost."
    )
    condition_cache: bool = setting(
        True,
        "Condition keys and values kept for a run. Faster; memory: blocks x condition tokens x 2 widths.",
    )
    shared_prefix: bool = setting(
        True, "Layers before the first cross-attention computed once for both branches. Faster; memory: their outputs."
    )
    index_cache: bool = setting(
        True, "Voxel tables kept for an object, through generator and decoders. Faster; memory: 27 numbers a voxel."
    )
    joint_branches: bool = setting(
        True,
        "Both guidance branches of the structure stage in one pass. Faster for small models; memory: activations "
        "twice. Needs zero_condition; rests where a technique works inside the network.",
    )
    time_tables: bool = setting(
        True, "Modulation computed for all steps at once. Faster; memory: blocks x steps x 6 widths."
    )
    occupied_taps: bool = setting(
        True, "Sparse convolutions multiply occupied neighbours only. Faster; memory: two numbers a pair of neighbours."
    )
    onednn: bool = setting(
        True,
        "On a CPU in fp32, dense convolutions and the activations of feed-forwards by oneDNN. Faster; memory: those "
        "convolutions' weights again.",
    )
    cast_weights: bool = setting(
        True,
        "Under autocast, weights of the generators are cast once. Faster; memory: half as much again as their fp32 "
        "weights (1.9 GB for the official structure network).",
    )
    maskless_attention: bool = setting(
        True, "Attention inside windows and objects instead of masks over all pairs. Faster; no cost."
    )
    sparse_surface: bool = setting(
        True, "Surface extraction at the voxels instead of on dense grids. Faster; less memory; other order of faces."
    )
    shared_features: bool = setting(
        True, "Encodings of the newest pictures kept. Faster; memory: a few of them, while accelerated."
    )
    cuda_graphs: bool = setting(
        False,
        "Structure network replayed as CUDA graphs. Faster where the host is slower than the card; not yet measured on "
        "a GPU. Memory: condition keys and values, and activations of an evaluation, stay from object to object. Rests "
        "where a technique works inside the network, and where a memory budget moves weights.",
    )














register(Technique("exact", ExactConfig, "exact", STAGES))
