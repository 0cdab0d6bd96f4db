from __future__ import annotations

import math

import pytest
import torch
from technique_runs import even, sample

from fastsam3d.diffusion.batched_policy import BatchedPolicy
from fastsam3d.diffusion.registry import REGISTRY
from fastsam3d.diffusion.techniques.rivals.dmd import DmdConfig, DmdPredictor
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory


def run(function, settings=None, **kwargs):
    technique = REGISTRY["dmd"]
    config = DmdConfig(enabled=True, **(settings or {}))
    return sample(lambda trajectory: technique.make(config, trajectory), function, **kwargs)


def damped(index, size=30):
    phase = torch.linspace(0.1, 2.9, size)[None]
    return 3 * math.exp(-0.05 * index) * torch.cos(0.2 * index + phase)


def test_damped_cosines_are_exact_once_four_even_steps_are_known():
    predictor = DmdPredictor(DmdConfig(enabled=True))
    for index in (0, 1, 5, 9):
        predictor.add(index, {"latent": damped(index)})
    assert (predictor.predict("latent", 11) - damped(11)).abs().max() > 1e-2  # 0 and 1 are too close together
    predictor.add(13, {"latent": damped(13)})
    for index in (14, 15, 16):
        assert torch.allclose(predictor.predict("latent", index), damped(index), atol=1e-4)


def test_before_that_hermite_stands_in():
    # As worked out for HiCache: 81 + 14 h1 + h2 after steps 1, 5 and 9 of j^2.
    result = run(lambda x, t, j: float(j * j))
    assert result.used[11]["shape"].flatten()[0].item() == pytest.approx(81 + 14 * 1.0 + 0.5, rel=1e-6)


def test_modalities_have_modes_of_their_own():
    """A tiny layout beside a large shape: as one vector the layout's own oscillation would be dropped as noise."""
    predictor = DmdPredictor(DmdConfig(enabled=True))
    for index in (1, 5, 9, 13):
        predictor.add(index, {"shape": 1e6 * damped(index, 300), "scale": 1e-3 * damped(3 * index, 5)})
    assert torch.allclose(predictor.predict("scale", 15), 1e-3 * damped(45, 5), atol=1e-7)


def test_voxels_have_modes_in_common_whatever_the_shape_of_their_tensor():
    """Some pipelines hold latents as `[N, C]`: a voxel alone has too few numbers to show an oscillation."""
    predictor = DmdPredictor(DmdConfig(enabled=True))
    for index in (1, 5, 9, 13):
        predictor.add(index, {"latent": damped(index).T})
    assert torch.allclose(predictor.predict("latent", 15), damped(15).T, atol=1e-4)


def test_objects_of_a_batch_have_modes_of_their_own():
    config = DmdConfig(enabled=True)
    trajectory = Trajectory("sparse_structure", even(20), (False,) * 20)
    together = BatchedPolicy([REGISTRY["dmd"].make(config, trajectory) for _ in range(2)])

    def network(index):
        both = torch.cat([1e6 * damped(index), 1e-3 * damped(2 * index)])[:, None]
        return lambda x, tokens=None: GuidedVelocity({"shape": both})

    x = {"shape": torch.zeros(2, 1, 30)}
    for index in range(16):
        used = together.velocity(x, Step(index, even(20), (False,) * 20), network(index))
    assert torch.allclose(used["shape"][1], 1e-3 * damped(30), atol=1e-7)


def test_schedule_and_last_step():
    assert run(lambda x, t, j: 1.0).computed == [0, 1, 5, 9, 13, 17, 21, 24]
    assert run(lambda x, t, j: 1.0, times=even(12)).computed == [0, 1, 5, 9, 11]
    assert run(lambda x, t, j: 1.0, times=even(4), shortcut=True).computed == [0, 1, 2, 3]


def test_guidance_kept_apart_ends_at_the_edge():
    result = run(lambda x, t, j: 1.0, {"guidance_apart": True}, delta=lambda x, t, j: 4.2)
    assert result.values("shape") == pytest.approx([5.2] * 19 + [1.0] * 6, abs=1e-5)
