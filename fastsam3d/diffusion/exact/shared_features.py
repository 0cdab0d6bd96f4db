"""Exact saving: encodes a picture once where two stages, or several objects, ask for the same encoding."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastsam3d.acceleration.patching import instead_of
from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, register_saving
from fastsam3d.diffusion.sites import Forward
from fastsam3d.modules.tensor_versions import place_and_version, version

EQUAL_WEIGHTS = "image encoders of both stages have equal weights: a picture is encoded once for both"
OTHER_WEIGHTS = "image encoders of the two stages have different weights: each encodes for itself"


class SharedFeatures:
    """Keeps what encoders with the same weights made of the newest pictures.

    Pictures are told apart by their values. Numbers depend on the precision of the moment, hence so does what is
    kept; and on the encoder's weights, which somebody may change.

    Args:
        kept: how many pictures; the one that was asked for longest ago goes first.
    """

    def __init__(self, kept: int = 2) -> None:
        self._limit = kept
        self._weights: dict[int, tuple[Any, ...]] = {}
        self._changed = False
        self._kept: list[tuple[Tensor, int, Any, Any]] = []  # picture, its version, key, features

    def wrap(self, original: Forward) -> Forward:
        """Wraps an encoder `(picture, ...) -> features`: it encodes a picture once. Other arguments must not change."""
        return self.wrapped(original)

    def wrapped(
        self,
        original: Forward,
        network: nn.Module | None = None,
        reused: Callable[[], None] = lambda: None,
        moved: bool = False,
    ) -> Forward:
        """Does the same for an encoder whose `network` may get other weights; calls `reused` where nothing ran.

        Args:
            moved: the pipeline moves the weights itself, so that their address tells nothing.
        """

        def encode(picture: Tensor, *args: Any, **kwargs: Any) -> Any:
            if network is not None and self._has_other_weights(network, moved):
                return original(picture, *args, **kwargs)
            key = (_precision(picture), args, tuple(sorted(kwargs.items())))
            for place, (known, known_version, known_key, features) in enumerate(self._kept):
                unchanged = version(known) == known_version
                if unchanged and known_key == key and _equal(known, picture):
                    self._kept.append(self._kept.pop(place))
                    reused()
                    return _shallow(features)
            features = original(picture, *args, **kwargs)
            self._kept = [*self._kept[len(self._kept) - self._limit + 1 :], (picture, version(picture), key, features)]
            return _shallow(features)

        return encode

    def _has_other_weights(self, network: nn.Module, moved: bool) -> bool:
        """Tells whether an encoder has got other weights; then kept values are old, and encoders may not agree."""
        # Loading counts a parameter's version up; `parameter.data = values` gives it another address.
        tensors = itertools.chain(network.parameters(), network.buffers())
        now = tuple(version(t) if moved else place_and_version(t) for t in tensors)
        if self._weights.setdefault(id(network), now) != now:
            self._changed = True
            self._kept.clear()
        return self._changed


class SharedDepth:
    """Replaces a depth model: computes the depth of a picture once, although every object asks for it."""

    def __init__(self, model: Callable[[Tensor], Any]) -> None:
        self._model = model
        network = model if isinstance(model, nn.Module) else None
        self._encode = SharedFeatures(kept=1).wrapped(model, network)

    def __getattr__(self, name: str) -> Any:
        if name == "_model":  # asked for while a copy is made, before there is one
            raise AttributeError(name)
        return getattr(self._model, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Gives a copy of the pipeline the original depth model."""
        return copy.deepcopy(self._model, memo)

    def __reduce__(self) -> Any:
        return instead_of, (self._model,)

    def __call__(self, picture: Tensor) -> Any:
        """Depth of a picture, computed once."""
        return self._encode(picture)


def groups_of_equal_weights(modules: Sequence[nn.Module]) -> list[list[nn.Module]]:
    """Modules sorted into groups whose members have the same parameters and buffers, value for value."""
    groups: list[list[nn.Module]] = []
    for module in modules:
        group = next((g for g in groups if _same_weights(g[0], module)), None)
        if group is None:
            groups.append([module])
        elif all(member is not module for member in group):
            group.append(module)
    return groups


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    if a is b:
        return True
    mine, other = a.state_dict(), b.state_dict()
    # The first differing tensor ends the comparison; different networks cost next to nothing.
    return mine.keys() == other.keys() and all(_equal(value, other[name]) for name, value in mine.items())


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))


def _precision(picture: Tensor) -> Any:
    kind = picture.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else picture.dtype


def _shallow(features: Any) -> Any:
    """Returns a copy whose entries may be replaced without changing the kept value."""
    return dict(features) if isinstance(features, dict) else features


def _attach(target: PipelineTarget) -> None:
    sites = target.host.picture_encoders()
    by_module = {id(site.module): site for site in sites}
    groups = groups_of_equal_weights([site.module for site in sites])
    for group in groups:
        members = [by_module[id(module)] for module in group]
        # A group of all encoders, of pictures and of masks, is asked for both.
        shared = SharedFeatures(kept=max(members[0].pictures, len(group)))
        for site in members:
            reused = partial(target.operations.reused, site.network, site.flops) if site.network else _nothing
            watched = site.module if site.weights_may_change else None
            wrapped = partial(shared.wrapped, network=watched, reused=reused, moved=site.weights_move)
            target.patches.replace(site.module, site.method, wrapped)
    for owner, attribute in target.host.depth_models():
        target.patches.set(owner, attribute, SharedDepth(getattr(owner, attribute)))
    if any(site.network for site in sites):
        several = any(len({by_module[id(module)].network for module in group}) > 1 for group in groups)
        target.notes.append(lambda: EQUAL_WEIGHTS if several else OTHER_WEIGHTS)


def _nothing() -> None:
    pass


register_saving(
    ExactSaving(
        "shared_features",
        "Encodings of the newest pictures kept. Faster; memory: a few of them, while accelerated.",
        Nesting.MODULES,
        sites=("picture_encoders", "depth_models"),
        attach=_attach,
    )
)
