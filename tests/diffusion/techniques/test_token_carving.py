from __future__ import annotations

import torch

from fastsam3d.diffusion.maths.spectral import min_max
from fastsam3d.diffusion.techniques.token_carving import (
    TokenCarving,
    TokenCarvingConfig,
    carving_score,
    cell_maximum,
    choose_carved,
)
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory


def test_constant_scores_carve_a_tenth_for_four_evaluations_and_then_another_tenth():
    score, streak = torch.zeros(1000), torch.zeros(1000, dtype=torch.int64)
    chosen = []
    for _ in range(9):
        carved = choose_carved(score, streak, 0.1, 4)
        assert int(carved.sum()) == 100
        streak = torch.where(carved, streak + 1, torch.zeros_like(streak))
        assert int(streak.max()) <= 4
        chosen.append(torch.nonzero(carved)[:, 0].tolist())
    assert chosen[:4] == [list(range(100))] * 4
    assert chosen[4] == list(range(100, 200))
    assert chosen[5] == list(range(100))


def test_the_least_important_are_carved():
    score = torch.tensor([0.5, 0.1, 0.9, 0.2])
    carved = choose_carved(score, torch.zeros(4, dtype=torch.int64), 0.5, 4)
    assert carved.tolist() == [False, True, False, True]


def test_min_max_of_a_constant_is_zero():
    assert torch.equal(min_max(torch.full((5,), 3.7)), torch.zeros(5))
    assert min_max(torch.tensor([1.0, 2.0, 5.0])).tolist() == [0.0, 0.25, 1.0]


def test_score_by_hand():
    size, change, structure = torch.tensor([0.0, 2.0]), torch.tensor([4.0, 0.0]), torch.tensor([0.0, 1.0])
    score = carving_score(size, change, structure, 0.7, 0.3)
    assert torch.allclose(score, torch.tensor([0.49, 0.7 * 0.3 + 0.3]))
    assert torch.allclose(carving_score(size, change, None, 0.7, 0.3), torch.tensor([0.7, 0.3]))


def test_cells_take_their_liveliest_voxel():
    values = torch.tensor([1.0, 5.0, 2.0, 3.0])
    assert cell_maximum(values, torch.tensor([0, 0, 1, 1]), 2).tolist() == [5.0, 3.0]


def trajectory(cells=10, per_cell=4, steps=12, guided=None):
    inverse = torch.arange(cells).repeat_interleave(per_cell)
    coords = torch.zeros(cells * per_cell, 4, dtype=torch.int32)
    times = tuple(k / steps for k in range(steps + 1))
    return Trajectory("structured_latent", times, guided or (False,) * steps, coords=coords, cells=inverse)


def asked(config, path, velocities):
    """Tokens asked for at each step, None for all. `velocities[j]` is `[N, C]`."""
    policy, asked = TokenCarving(config, path), []
    for index in range(path.count):

        def evaluate(x, tokens=None, index=index):
            asked.append(None if tokens is None else tokens.tolist())
            return GuidedVelocity({"latent": velocities(index)[None]})

        policy.velocity({"latent": torch.zeros(1, 40, 2)}, Step(index, path.times, path.guided), evaluate)
    return asked


def test_calm_cells_are_left_out_after_the_warm_up_but_not_at_the_end():
    def velocities(index):  # cells 0 to 4 are calm, 5 to 9 move and change
        v = torch.zeros(40, 2)
        v[20:] = 1.0 + index % 2
        return v

    steps = asked(
        TokenCarvingConfig(enabled=True, carved_fraction=0.5, streak_limit=50), trajectory(), velocities
    )
    assert steps[0] is None
    assert steps[1] is None
    assert steps[-1] is None
    assert all(tokens == [5, 6, 7, 8, 9] for tokens in steps[2:-1])


def test_guidance_edge_and_refresh_compute_all_cells():
    path = trajectory(guided=(True,) * 6 + (False,) * 6)
    config = TokenCarvingConfig(enabled=True, carved_fraction=0.5, refresh_every=4)
    steps = asked(config, path, lambda index: torch.arange(80.0).reshape(40, 2) + index)
    assert [j for j, tokens in enumerate(steps) if tokens is None] == [0, 1, 4, 6, 8, 11]


def test_nothing_to_carve_asks_for_everything():
    config = TokenCarvingConfig(enabled=True, carved_fraction=0.05)  # less than one of ten cells
    assert set(map(str, asked(config, trajectory(), lambda index: torch.ones(40, 2)))) == {"None"}


def test_fine_structure_protects_its_cells():
    logits = torch.full((1, 1, 16, 16, 16), -1.0)
    block = torch.argwhere(torch.ones(8, 8, 8)) + 4
    coords = torch.cat([torch.zeros(len(block), 1, dtype=torch.int64), block], dim=1)
    x, y, z = block.unbind(1)
    logits[0, 0, x, y, z] = 1.0
    logits[0, 0, 11, 11, 11] = 40.0  # a spike
    cells = torch.unique(block // 2, dim=0, return_inverse=True)[1]
    path = Trajectory(
        "structured_latent", (0.0, 0.5, 1.0), (False, False), coords=coords, logits=logits, cells=cells
    )
    structure = TokenCarving(TokenCarvingConfig(enabled=True), path).structure
    assert structure is not None
    assert int(structure.argmax()) == int(cells[-1])
