"""The released variants have the released defects: each test would fail on the mended technique."""

from __future__ import annotations

import pytest
import torch
from technique_runs import SPARSE_GUIDED, even, sample

from fastsam3d.diffusion.maths import network_evaluations
from fastsam3d.diffusion.techniques.released.aggregation import (
    ReleasedAggregation,
    ReleasedAggregationConfig,
    released_aggregate,
    released_occupancy_detail,
    released_picture_detail,
)
from fastsam3d.diffusion.techniques.released.latent_caching import ReleasedLatentCaching, ReleasedLatentCachingConfig
from fastsam3d.diffusion.techniques.released.step_caching import ReleasedStepCaching, ReleasedStepCachingConfig
from fastsam3d.diffusion.techniques.token_aggregation import aggregate
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory, VoxelSet

LATENT = {"stage": "structured_latent", "names": ("latent",), "times": even(25), "guided": (False,) * 25}


def steps(function, settings=None, **kwargs):
    config = ReleasedStepCachingConfig(enabled=True, **(settings or {}))
    return sample(lambda trajectory: ReleasedStepCaching(config, trajectory), function, **kwargs)


@pytest.mark.parametrize(
    ("stride", "computed", "evaluations"),
    [
        (2, [0, 1, *range(3, 24, 2), 24], 24),
        (3, [0, 1, 4, 7, 10, 13, 16, 19, 22, 24], 17),
        (4, [0, 1, 5, 9, 13, 17, 21, 24], 14),
        (5, [0, 1, 6, 11, 16, 21, 24], 12),
    ],
)
def test_released_schedule(stride, computed, evaluations):
    assert steps(lambda x, t, j: 1.0, {"stride": stride}).computed == computed
    assert network_evaluations(computed, SPARSE_GUIDED) == evaluations


def test_the_literal_24_misses_other_step_counts():
    assert steps(lambda x, t, j: 1.0, times=even(12)).computed == [0, 1, 4, 7, 10]
    assert len(steps(lambda x, t, j: 1.0, times=even(50)).computed) == 35
    # Four distilled steps: two of them are forecast all the same.
    assert steps(lambda x, t, j: 1.0, times=even(4), guided=(False,) * 4, shortcut=True).computed == [0, 1]


def test_beta_changes_nothing():
    runs = [steps(lambda x, t, j: float(j**2), {"momentum_beta": beta}).used for beta in (0.0, 0.5, 0.9)]
    for other in runs[1:]:
        assert all(torch.equal(a[n], b[n]) for a, b in zip(runs[0], other, strict=True) for n in a)
    assert all(torch.equal(v["shape"], v["translation"]) for v in runs[0])


def test_the_guidance_edge_is_taken_for_motion():
    c, delta = 1.0, 4.2
    result = steps(lambda x, t, j: c, delta=lambda x, t, j: delta)
    # Guidance ends before step 19; steps 16 and 19 are computed, and their difference is carried on.
    values = result.values("shape")
    assert values[:20] == pytest.approx([c + delta] * 19 + [c], abs=1e-5)
    assert values[20:22] == pytest.approx([c - delta / 3, c - 2 * delta / 3], abs=1e-5)


def latent(function, settings=None, **kwargs):
    config = ReleasedLatentCachingConfig(enabled=True, carved_fraction=0.0, **(settings or {}))
    return sample(lambda trajectory: ReleasedLatentCaching(config, trajectory), function, **{**LATENT, **kwargs})


def growth(x, t, j):
    return x


def test_skipping_by_hand():
    """v = x from 1: states 1, 1.04, 1.0816. At step 2 the output changed by 0.0416, the state before it by 0.04."""
    config = ReleasedLatentCachingConfig(enabled=True, carved_fraction=0.0)
    policy = ReleasedLatentCaching(config, Trajectory("structured_latent", even(25), (False,) * 25))
    for index, value in enumerate((1.0, 1.04, 1.0816)):
        x = {"latent": torch.full((1, 2, 2), value)}
        policy.velocity(x, Step(index, even(25), (False,) * 25), lambda s, tokens=None: GuidedVelocity(dict(s)))
    assert policy.sensitivity == pytest.approx(1.04, rel=1e-4)  # the matched value would be 1
    x = {"latent": torch.full((1, 2, 2), 1.1249)}
    skipped = policy.velocity(x, Step(3, even(25), (False,) * 25), pytest.fail)
    assert skipped["latent"].flatten()[0].item() == pytest.approx(1.1249, abs=1e-5)  # x + (v - x), and v = x
    assert policy.error == pytest.approx(1.04 * (1.1249 - 1.0816) / 1.0816, rel=1e-3)


def test_skips_have_no_cap_and_the_last_step_no_guard():
    assert latent(growth, {"threshold": 100.0}).computed == [0, 1, 2]


@pytest.mark.parametrize("warmup", [1, 2, 3])
def test_short_warm_ups_are_the_same(warmup):
    assert latent(growth, {"warmup": warmup}).computed == latent(growth, {"warmup": 3}).computed


def test_the_increment_belongs_to_the_other_direction_of_time():
    # v = 5 - x: v + x stands still and v - x does not. From 1, steps 0 to 2 are computed.
    result = latent(lambda x, t, j: 5.0 - x, {"threshold": 100.0})
    x2 = 5.0 - 4.0 * 0.96**2
    x3 = x2 + 0.04 * (5.0 - x2)
    assert result.values("latent")[3] == pytest.approx(x3 + (5.0 - 2 * x2), abs=1e-5)


def test_carving_skips_the_share_voxel_by_voxel():
    count, asked = 40, []
    config = ReleasedLatentCachingConfig(enabled=True, threshold=0.0, carved_fraction=0.1)
    policy = ReleasedLatentCaching(config, Trajectory("structured_latent", even(12), (False,) * 12))
    x = {"latent": torch.zeros(1, count, 2)}
    for index in range(12):

        def evaluate(state, tokens=None, *, subset=None, index=index):
            asked.append(None if subset is None else subset.tolist())
            value = torch.full((1, count, 2), 5.0 + index)
            value[:, :4] = 0.1  # four calm voxels
            if subset is not None:
                value[:, [v for v in range(count) if v not in set(asked[-1])]] = 0.0
            return GuidedVelocity({"latent": value})

        velocity = policy.velocity(x, Step(index, even(12), (False,) * 12), evaluate)["latent"]
        assert velocity[0, :4].flatten().tolist() == pytest.approx([0.1] * 8)  # kept where they did not run
    carved = [None if a is None else sorted(set(range(count)) - set(a)) for a in asked]
    assert carved[:2] == [None, None]
    assert carved[2:6] == [[0, 1, 2, 3]] * 4
    assert carved[6] is None  # all four were left out four times: they run, and nobody takes their place
    assert carved[7] == [0, 1, 2, 3]


def box(sides, offset=(4, 6, 8), resolution=64):
    cells = torch.argwhere(torch.ones(*sides)) + torch.tensor(offset)
    return VoxelSet(torch.cat([torch.zeros(len(cells), 1, dtype=torch.int64), cells], dim=1).int(), resolution)


def test_released_map_distorts_and_shifts_where_ours_does_not():
    voxels = box((20, 9, 20))
    released, ours = released_aggregate(voxels, 2.0), aggregate(voxels.coords, 2.0, 64)
    spans = released.coords[:, 1:].amax(0) - released.coords[:, 1:].amin(0) + 1
    assert spans.tolist() == [10, 4, 10]  # 4.5 cells became 4 on the thin axis: a factor of 2.25 there
    centres = (released.coords[:, 1:].double() + 0.5) / 64 - 0.5
    back = released.lattice.object_points_to_fine(centres)
    truth = (voxels.coords[:, 1:].double() + 0.5) / 64 - 0.5
    assert (back.mean(0) - truth.mean(0)).abs().max() > 5 / 64  # enlarged about the grid's middle, not the box's
    mended = ours.lattice.object_points_to_fine((ours.coords[:, 1:].double() + 0.5) / 64 - 0.5)
    assert (mended.mean(0) - truth.mean(0)).abs().max() < 1 / 64


def test_a_flat_box_is_not_divided_by_zero():
    merged = released_aggregate(box((8, 8, 1)), 2.0)
    assert merged.coords[:, 3].unique().numel() == 1
    assert bool(((merged.coords >= 0) & (merged.coords < 64)).all())


def test_scores_and_choice():
    logits = torch.full((1, 1, 64, 64, 64), -1.0)
    assert released_occupancy_detail(logits) == 0.0
    logits[0, 0, 32, 32, 32] = 1.0  # a point has the same amplitude in every bin
    bins = torch.fft.fftfreq(64)
    distance = torch.sqrt(sum(b**2 for b in torch.meshgrid(bins, bins, bins, indexing="ij")))
    expected = float((distance >= 0.125).float().mean())
    assert released_occupancy_detail(logits) == pytest.approx(expected, abs=1e-4)
    image = torch.full((40, 40, 3), 100.0)
    mask = torch.zeros(40, 40, dtype=torch.bool)
    assert released_picture_detail(image, mask) == 0.0
    mask[10:30, 10:30] = True
    assert released_picture_detail(image, mask) < 0.05  # one colour
    noise = 255 * torch.rand(300, 300, 3, generator=torch.Generator().manual_seed(0))
    full = torch.ones(300, 300, dtype=torch.bool)
    assert released_picture_detail(noise, full) > 0.3
    # Small sets are left alone, whatever their detail.
    assert ReleasedAggregation(ReleasedAggregationConfig(enabled=True)).reduce(box((8, 8, 8))) is None
