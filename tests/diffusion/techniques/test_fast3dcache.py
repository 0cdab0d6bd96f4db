"""Fast3Dcache's schedule and choice of tokens, worked out by hand on 64 shape tokens."""

from __future__ import annotations

import math

import pytest
import torch

from fastsam3d.diffusion.techniques.rivals.fast3dcache import Fast3Dcache, Fast3DcacheConfig
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory

TOKENS = 64


def run(steps=25, flipped=256, velocities=None, occupancy=True, batch=1, **settings):
    """Tokens that ran at each step, None for all; also the policy and the velocities used."""
    times = tuple(k / steps for k in range(steps + 1))
    decoded = []

    def decode(latents):
        decoded.append({name: value.clone() for name, value in latents.items()})
        logits = torch.full((1, 1, 16, 16, 16), -1.0)  # 64 voxels a token
        if len(decoded) == 2:
            logits.view(-1)[:flipped] = 1.0
        return logits

    trajectory = Trajectory("sparse_structure", times, (False,) * steps, occupancy=decode if occupancy else None)
    policy = Fast3Dcache(Fast3DcacheConfig(enabled=True, **settings), trajectory)
    asked, used = [], []
    x = {"shape": torch.zeros(batch, TOKENS, 2), "scale": torch.zeros(batch, 1, 3)}
    for index in range(steps):

        def evaluate(state, tokens=None, *, subset=None, index=index):
            asked.append(None if subset is None else subset.tolist())
            value = velocities(index) if velocities else torch.ones(TOKENS)
            shape = value[None, :, None].expand(batch, TOKENS, 2).clone()
            if subset is not None:
                rest = torch.ones(TOKENS, dtype=torch.bool)
                rest[subset] = False
                shape[:, rest] = 0.0
            return GuidedVelocity({"shape": shape, "scale": torch.full((batch, 1, 3), float(index))})

        used.append(policy.velocity(x, Step(index, times, trajectory.guided), evaluate))
    return asked, policy, used, decoded


def test_phases_of_25_steps():
    asked, policy, _, _ = run()
    assert policy.in_motion == 256
    assert policy.voxels_per_token == 64
    assert [j for j, tokens in enumerate(asked) if tokens is None] == [0, 1, 2, 3, 4, 5, 19, 22, 24]
    # Voxels in motion fall by exp(-0.07) a step from 256 at the anchor: three, then two tokens hold them, until ...
    for j in (6, 10, 14, 18):
        expected = math.ceil(256 * math.exp(-0.07 * (j - 5)) / 64)
        assert policy.tokens_in_motion(j) == expected
    assert [len(asked[j]) for j in (6, 7, 8)] == [4, 4, 4]
    # 70 % of 64 tokens are 44; 20 run.
    assert [len(asked[j]) for j in (20, 23)] == [20, 20]


def test_the_estimate_that_is_decoded_is_that_of_the_data():
    decoded = run()[3]
    assert len(decoded) == 2
    # x = 0 and v = 1: the data is expected at (1 - t), at steps 4 and 5.
    assert [d["shape"].unique().item() for d in decoded] == pytest.approx([1 - 4 / 25, 1 - 5 / 25])


def test_lively_tokens_run_and_the_others_keep_their_velocity():
    def velocities(index):
        v = torch.ones(TOKENS)
        v[10:14] = 3.0 + index  # fast and changing
        return v

    asked, _, used, _ = run(velocities=velocities, streak_limit=50)
    assert asked[6] == [10, 11, 12, 13]
    assert used[6]["shape"][0, 10].tolist() == [9.0, 9.0]
    assert used[6]["shape"][0, 0].tolist() == [1.0, 1.0]
    assert used[6]["scale"].unique().item() == 6.0  # the layout runs at every step


def test_no_token_is_left_out_more_often_in_a_row_than_allowed():
    asked, *_ = run(streak_limit=3)
    longest, current = 0, torch.zeros(TOKENS)
    for tokens in asked:
        ran = torch.ones(TOKENS, dtype=torch.bool)
        if tokens is not None:
            ran[:] = False
            ran[tokens] = True
        current = torch.where(ran, torch.zeros(TOKENS), current + 1)
        longest = max(longest, int(current.max()))
    assert longest == 3


def test_everything_in_motion_computes_everything():
    assert run(flipped=4096, decay=0.0)[0][:19] == [None] * 19


@pytest.mark.parametrize("steps", [1, 2, 4, 12])
def test_short_runs(steps):
    asked, *_ = run(steps)
    assert asked[0] is None
    assert asked[-1] is None
    assert len(asked) == steps


def test_what_it_cannot_judge_is_computed():
    assert run(occupancy=False)[0] == [None] * 25
    assert run(batch=2)[0] == [None] * 25
