"""Replaces a stack of transformer blocks, or all but its first, by its last change, where a policy says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.sites import TENSORS, EvaluationState, Forward, HiddenStates
from fastsam3d.diffusion.vocabulary import BlockPolicy, Key

Hidden = Any
"""Hidden states: a tensor, or a mapping of tensors by stream."""


class _Item:
    """One pass through the stack, and the change of the last pass that ran to its end."""

    def __init__(self) -> None:
        self.entered: Hidden = None
        self.reusing = False
        self.change: Hidden = None


class BlockStack:
    """Attaches a block policy to the blocks of a stage.

    Args:
        blocks: the blocks in order.
        state: of the evaluation in progress.
        policy: gives the policy of the run in progress, or None.
        step: gives the index of the step in progress.
        states: reads and writes the hidden states of the blocks.
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        state: EvaluationState,
        policy: Callable[[], BlockPolicy | None],
        step: Callable[[], int],
        states: HiddenStates = TENSORS,
    ) -> None:
        self.blocks, self.state, self.states = list(blocks), state, states
        self._policy, self._step = policy, step
        self._items: dict[Key, _Item] = {}
        self._pass: tuple[int, str, int] = (-1, "", -1)  # evaluation, branch, item

    def attach(self, patches: Patches) -> None:
        """Patches every block."""
        for index, block in enumerate(self.blocks):
            patches.replace(block, "forward", self._block(index))

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self._items.clear()
        self._pass = (-1, "", -1)

    def finish(self) -> None:
        """Releases what was kept."""
        self._items.clear()

    def _block(self, index: int) -> Callable[[Forward], Forward]:
        last = len(self.blocks) - 1

        def make(original: Forward) -> Forward:
            def forward(h: Hidden, *args: Any, **kwargs: Any) -> Any:
                policy, branch = self._policy(), self.state.branch
                if not self.state.running or branch is None or policy is None or not self.states.accepts(h):
                    return original(h, *args, **kwargs)
                key = self._key(index, branch)
                item = self._items.setdefault(key, _Item())
                if index == 0:
                    item.entered, item.reusing = self.states.read(h), False
                if index == policy.probe:
                    inside = self.states.read(h)
                    probe = _named(_minus(inside, item.entered))
                    item.entered = inside
                    # Always asked, because policies learn from what they are shown.
                    item.reusing = policy.reuse(key, self._step(), probe) and item.change is not None
                    if item.reusing:
                        self.state.reused[branch] = policy.probe / len(self.blocks)
                if index >= policy.probe and item.reusing:
                    return self.states.write(h, _plus(item.entered, item.change)) if index == last else h
                out = original(h, *args, **kwargs)
                if index == last:
                    item.change = _minus(self.states.read(out), item.entered)
                    policy.computed(key, self._step(), _named(item.change))
                return out

            return forward

        return make

    def _key(self, index: int, branch: str) -> Key:
        evaluation, passing, item = self._pass
        if index == 0:
            same = (evaluation, passing) == (self.state.evaluation, branch)
            item = item + 1 if same else 0
            self._pass = (self.state.evaluation, branch, item)
        return branch, item


def _named(h: Hidden) -> dict[str, Tensor]:
    return dict(h) if isinstance(h, Mapping) else {"": h}


def _minus(a: Hidden, b: Hidden) -> Hidden:
    return {name: a[name] - b[name] for name in a} if isinstance(a, Mapping) else a - b


def _plus(a: Hidden, b: Hidden) -> Hidden:
    return {name: a[name] + b[name] for name in a} if isinstance(a, Mapping) else a + b
