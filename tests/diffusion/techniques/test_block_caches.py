"""First-Block cache and MagCache: their decisions by hand, and the stack of blocks that follows them."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.acceleration.patching import Patches
from fastsam3d.acceleration.presets import load_preset
from fastsam3d.diffusion.partial.block_stack import BlockStack
from fastsam3d.diffusion.sites import EvaluationState
from fastsam3d.diffusion.techniques.rivals.first_block_cache import FirstBlockCache, FirstBlockCacheConfig
from fastsam3d.diffusion.techniques.rivals.magcache import MagCache, MagCacheConfig, resampled
from fastsam3d.diffusion.vocabulary import Trajectory
from fastsam3d.errors import UserError

KEY = ("conditional", 0)


def trajectory(steps=10, **values):
    times = tuple(k / steps for k in range(steps + 1))
    return Trajectory("sparse_structure", times, (False,) * steps, **values)


def first_block(values, steps=10, shortcut=False, **settings):
    """Steps at which the rest of the blocks ran, for probes of the given values."""
    config = FirstBlockCacheConfig(enabled=True, **{"threshold": 0.1, "first_steps": 1, **settings})
    policy = FirstBlockCache(config, trajectory(steps, shortcut=shortcut))
    return [j for j in range(steps) if not policy.reuse(KEY, j, {"": torch.full((1, 2, 3), values(j))})]


def test_first_block_compares_with_the_last_whole_pass_and_not_with_the_last_pass():
    # 1, 1.04, 1.08, 1.12: against 1 the third is 0.12 away, though each is 0.04 from the one before.
    assert first_block(lambda j: 1.0 + 0.04 * j) == [0, 3, 6, 9]


def test_first_block_guards():
    assert first_block(lambda j: 1.0) == [0, 9]
    assert first_block(lambda j: 1.0, last_step=False) == [0]
    assert first_block(lambda j: 1.0, first_steps=4) == [0, 1, 2, 3, 9]
    assert first_block(lambda j: 1.0, max_consecutive_skips=2) == [0, 3, 6, 9]
    assert first_block(lambda j: 1.0, threshold=0.0) == list(range(10))
    assert first_block(lambda j: 1.0, shortcut=True) == list(range(10))
    assert first_block(lambda j: 1.0, steps=1) == [0]


def magcache(ratio, steps=10, shortcut=False, **settings):
    """Steps at which the blocks ran, when every step's magnitude is `ratio` times the last."""
    curve = [1.0] + [ratio] * 9
    config = MagCacheConfig(
        enabled=True,
        stages="sparse_structure",
        sparse_structure_ratios=curve,
        sparse_structure_unconditional_ratios=curve,
        **settings,
    )
    policy, ran = MagCache(config, trajectory(steps, shortcut=shortcut)), []
    for j in range(steps):
        if not policy.reuse(KEY, j, {}):
            ran.append(j)
            policy.computed(KEY, j, {})
    return ran


def test_magcache_adds_up_the_error_of_the_product():
    # 0.98: |1 - 0.98| = 0.02, then |1 - 0.9604| more: 0.0596 <= 0.06; a third would be 0.118.
    assert magcache(0.98) == [0, 1, 4, 7, 9]
    assert magcache(0.97) == [0, 1, 3, 5, 7, 9]  # 0.03, then 0.0891


def test_magcache_guards():
    assert magcache(1.0) == [0, 1, 5, 9]  # nothing in the first fifth, three skips at most
    assert magcache(1.0, max_consecutive_skips=50) == [0, 1, 9]
    assert magcache(1.0, max_consecutive_skips=50, last_step=False) == [0, 1]
    assert magcache(1.0, retention=0.5, max_consecutive_skips=50) == [0, 1, 2, 3, 4, 9]
    assert magcache(1.0, shortcut=True) == list(range(10))
    assert magcache(1.0, steps=4) == [0, 3]


def test_curves_are_resampled_by_magnitude():
    assert resampled([1.0, 2.0, 2.0, 2.0], 4, 4) == pytest.approx([1.0, 2.0, 2.0, 2.0])
    assert resampled([1.0, 2.0, 2.0, 2.0], 2, 4) == pytest.approx([1.0, 4.0])  # one step is two of the old
    assert resampled([1.0, 2.0, 2.0, 2.0], 8, 4)[:5] == pytest.approx([1.0, *[2**0.5] * 4])


def test_magcache_without_a_curve_says_where_to_get_one():
    with pytest.raises(UserError, match=r"no curve .*fastsam3d\.evaluation\.tuning\.magcache_curves"):
        load_preset("off", {"magcache": True})
    with pytest.raises(UserError, match=r"sparse_structure_ratios\[1\] is -1.0"):
        load_preset("magcache", {"magcache.sparse_structure_ratios": [1.0, -1.0]})
    with pytest.raises(UserError, match="a list of numbers"):
        load_preset("magcache", {"magcache.sparse_structure_ratios": 1.0})


class Adding:
    """A block that adds to its input, and counts."""

    def __init__(self, amount):
        self.amount, self.calls = amount, 0

    def forward(self, h):
        self.calls += 1
        return {k: v + self.amount for k, v in h.items()} if isinstance(h, dict) else h + self.amount


class Told:
    """A policy that does as it is told, and notes what it was shown."""

    def __init__(self, probe, plan):
        self.probe, self.plan, self.probes, self.changes = probe, plan, [], []

    def reuse(self, key, step, probe):
        self.probes.append({name: float(v.flatten()[0]) for name, v in probe.items()})
        return self.plan[step]

    def computed(self, key, step, change):
        self.changes.append((key, {name: float(v.flatten()[0]) for name, v in change.items()}))


def stacked(policy, blocks):
    state, patches, clock = EvaluationState(running=True), Patches(), [0]
    BlockStack(blocks, state, lambda: policy, lambda: clock[0]).attach(patches)

    def run(h, step, branch="conditional", new=True):
        clock[0], state.branch = step, branch
        state.evaluation += int(new)
        state.reused.clear()
        for block in blocks:
            h = block.forward(h)
        return h, dict(state.reused)

    return run, patches


@pytest.mark.parametrize("wrap", [lambda v: torch.tensor([[v]]), lambda v: {"a": torch.tensor([[v]])}])
def test_stack_reuses_the_change_of_what_it_skips(wrap):
    blocks = [Adding(1.0), Adding(10.0), Adding(100.0)]
    policy = Told(1, [True, True, False])
    run, patches = stacked(policy, blocks)
    value = lambda h: float(next(iter(h.values())) if isinstance(h, dict) else h)  # noqa: E731
    assert value(run(wrap(0.0), 0)[0]) == 111.0  # nothing is known yet: the wish is not granted
    blocks[0].amount = 2.0
    out, reused = run(wrap(5.0), 1)
    assert value(out) == 5.0 + 2.0 + 110.0  # the first block as it is now, the others as they were
    assert reused == {"conditional": pytest.approx(1 / 3)}
    assert [b.calls for b in blocks] == [2, 1, 1]
    assert value(run(wrap(5.0), 2)[0]) == 117.0
    assert [b.calls for b in blocks] == [3, 2, 2]
    assert [list(p.values()) for p in policy.probes] == [[1.0], [2.0], [2.0]]
    assert [list(c.values()) for _, c in policy.changes] == [[110.0], [110.0]]
    patches.restore()
    assert all("forward" not in vars(block) for block in blocks)


def test_branches_and_items_of_a_batch_have_memories_of_their_own():
    blocks = [Adding(1.0), Adding(10.0)]
    policy = Told(0, [False, True])
    run, _ = stacked(policy, blocks)
    run(torch.zeros(1), 0)
    blocks[1].amount = 20.0
    run(torch.zeros(1), 0, new=False)  # a second item in the same evaluation
    blocks[1].amount = 30.0
    run(torch.zeros(1), 0, "unconditional", new=False)
    assert [key for key, _ in policy.changes] == [("conditional", 0), ("conditional", 1), ("unconditional", 0)]
    blocks[1].amount = 99.0
    assert float(run(torch.zeros(1), 1)[0]) == 11.0
    assert float(run(torch.zeros(1), 1, new=False)[0]) == 21.0
    assert float(run(torch.zeros(1), 1, "unconditional", new=False)[0]) == 31.0
