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
- *CUDA graphs.* Evaluations of the structure stage are recorded once and replayed, see `fastsam3d.hosts.graph_replay`.
- *Shared features.* A picture is encoded once for both stages and for all objects in it.
- *Time tables*, *occupied taps*, *cast weights* and *oneDNN*: see `exact_time`, `exact_taps`, `exact_weights`,
  `exact_onednn`.

Values of a run live as long as the run, voxel tables until the object is done, cast weights until it is all taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastsam3d.sites import BOTH, CONDITIONAL, UNCONDITIONAL, CrossAttentionSite, EvaluationState, Forward
from fastsam3d.techniques.base import STAGES, Technique, TechniqueConfig, register, setting
from fastsam3d.tensor_versions import version


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


class ConditionCache:
    """Cross-attention of one module during a run, with what is constant computed once.

    Args:
        site: where the module's parts are.
        state: what the host evaluates at the moment.
        zero_condition, keep: the two switches.
    """

    def __init__(
        self, site: CrossAttentionSite, state: EvaluationState, zero_condition: bool, keep: bool
    ) -> None:
        self.site, self.state = site, state
        self.zero_condition, self.keep = zero_condition, keep
        self._held = False
        self._constant: Tensor | None = None
        self._constant_is_fresh = False
        self._projected: dict[str, tuple[Tensor | None, Tensor, Tensor]] = {}

    def start(self) -> None:
        """Begins a run with nothing kept: weights and condition may have changed since the last."""
        self.finish()

    def finish(self) -> None:
        """Releases what was kept; what is held stays where it is, and counts as out of date."""
        self._constant_is_fresh = False
        if self._held:
            self._projected = {branch: (None, k, v) for branch, (_, k, v) in self._projected.items()}
        else:
            self._constant = None
            self._projected.clear()

    def hold(self, held: bool) -> None:
        """With `held`, keeps tensors beyond a run and copies new values to where they are: a graph reads them there.

        Without, what is out of date is released.
        """
        self._held = held
        if not held:
            self._projected = {branch: kept for branch, kept in self._projected.items() if kept[0] is not None}
            self._constant = self._constant if self._constant_is_fresh else None

    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that is kept."""
        constant = () if self._constant is None else (self._constant,)
        return (*constant, *(tensor for _, k, v in self._projected.values() for tensor in (k, v)))

    def wrap(self, original: Forward) -> Forward:
        """The module's `forward` with the savings in it; outside a run it is the original."""

        def forward(x: Tensor, context: Tensor) -> Tensor:
            branch, condition = self.state.branch, self.state.condition
            if branch is None or condition is None:
                return original(x, context)
            if branch == BOTH:
                # Only asked for where `zero_condition` is on.
                conditional = self._conditional(x[:1], context, condition, CONDITIONAL, original)
                return torch.cat([conditional, self._of_zeros().expand_as(conditional)])
            if self.zero_condition and branch == UNCONDITIONAL and self.state.zero_condition:
                return self._of_zeros().expand(*x.shape[:-1], -1)
            return self._conditional(x, context, condition, branch, original)

        return forward

    def _of_zeros(self) -> Tensor:
        if self._constant is None or not self._constant_is_fresh:
            self._constant = self._in_place(self._constant, self.site.constant())
            self._constant_is_fresh = True
        return self._constant

    def _in_place(self, old: Tensor | None, new: Tensor) -> Tensor:
        """`new`, written to where `old` is if that is held and fits."""
        if old is None or not self._held or (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device):
            return new
        if old.is_inference() and not torch.is_inference_mode_enabled():
            return new  # PyTorch forbids writing to such a tensor outside the mode that it was made in
        return old.copy_(new)

    def _conditional(self, x: Tensor, context: Tensor, condition: Tensor, branch: str, original: Forward) -> Tensor:
        if not self.keep:
            return original(x, context)
        # By identity of what the pipeline handed in: the network may cast or zero it anew at every call.
        kept = self._projected.get(branch)
        if kept is None or kept[0] is not condition:
            old = (None, None) if kept is None else kept[1:]
            new = self.site.project_context(context)
            kept = (condition, self._in_place(old[0], new[0]), self._in_place(old[1], new[1]))
            self._projected[branch] = kept
        return self.site.attend(x, kept[1], kept[2])


class SharedPrefix:
    """Output of one module that the conditional pass leaves to the unconditional pass of the same evaluation."""

    def __init__(self, state: EvaluationState) -> None:
        self.state = state
        self._kept: tuple[int, Any] | None = None

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self._kept = None

    def finish(self) -> None:
        """Releases what was kept."""
        self._kept = None

    def wrap(self, original: Forward) -> Forward:
        """The module's `forward`, which in the unconditional pass gives the output of the conditional one."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            branch, evaluation = self.state.branch, self.state.evaluation
            if branch == BOTH:
                # The two halves of the batch are equal still.
                return _map(lambda v: v.expand(2, *v.shape[1:]), original(*_map(lambda v: v[:1], args), **kwargs))
            if branch == UNCONDITIONAL and self._kept is not None and self._kept[0] == evaluation:
                out = self._kept[1]
                self._kept = None
                return out
            out = original(*args, **kwargs)
            if branch == CONDITIONAL:
                self._kept = (evaluation, out)
            return out

        return forward


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Applies a function to every tensor of tuples and mappings."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {name: _map(function, part) for name, part in value.items()}
    return tuple(_map(function, part) for part in value) if isinstance(value, tuple) else value


class IndexCache:
    """One index object for the voxels of an object, shared by everything that builds tables of them."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, int, Any] | None = None  # voxels, their version, index

    def clear(self) -> None:
        """Releases what was kept: the object is done."""
        self._kept = None

    def wrap(self, original: Forward) -> Forward:
        """The maker of index objects, which gives the same one for the same voxels."""

        def make_index(coords: Tensor) -> Any:
            if self._kept is None or not _same(self._kept[0], self._kept[1], coords):
                self._kept = (coords, version(coords), original(coords))
            return self._kept[2]

        return make_index


def _same(known: Tensor, known_version: int, coords: Tensor) -> bool:
    if version(known) != known_version:
        return False  # somebody has written to it
    # Moving coordinates to the device makes a new tensor at each call; comparing them is cheap beside building tables.
    equal_place = known.shape == coords.shape and known.device == coords.device
    return known is coords or (equal_place and torch.equal(known, coords))


def condition_caches(
    config: ExactConfig, sites: Iterable[CrossAttentionSite], state: EvaluationState
) -> list[ConditionCache]:
    """One cache for each cross-attention module, none where both switches are off."""
    if not (config.zero_condition or config.condition_cache):
        return []
    return [ConditionCache(site, state, config.zero_condition, config.condition_cache) for site in sites]


register(Technique("exact", ExactConfig, "exact", STAGES))
