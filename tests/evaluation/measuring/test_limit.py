"""The limit of a sampler on velocities whose integrals are known."""

from __future__ import annotations

import math

import pytest
import torch
from small_pipeline import picture
from tiny_pipeline import tiny_pipeline
from torch import nn

import fastsam3d
from fastsam3d.evaluation.measuring.limit import heun, limit_times, sampler_of
from fastsam3d.evaluation.metrics.latents import VoxelLatents, latent_error, latents_of
from fastsam3d.sam3d.models.flow_matching import ClassifierFreeGuidance, FlowMatching, combine


class Decay(nn.Module):
    """Conditional velocity -x, unconditional -x - 1: guidance of strength w adds w."""

    def forward(self, x, time, condition, cfg=False):
        return -x - (1.0 if cfg else 0.0)


def test_an_interval_of_heuns_method_by_hand():
    # x' = -x from 1 over 0.5: 1 + 0.25 (-1 - 0.5).
    found = heun(lambda x, t: -x, torch.ones(1), 0.0, 0.5, combine)
    assert found.item() == pytest.approx(0.625)


@pytest.mark.parametrize("bend", [1.0, 1.5, 3.0])
def test_the_grid_has_a_node_exactly_on_the_edge(bend):
    times = limit_times(20, bend, 0.5)
    assert 0.5 in times
    assert (times[0], times[-1], len(times)) == (0.0, 1.0, 21)
    assert times == sorted(times)
    assert limit_times(8, bend, 1.0)[-1] == 1.0


def test_it_converges_to_the_exact_solution_with_guidance_up_to_its_edge():
    # x' = -x + 3 until 0.5, then -x, from 1.
    middle = 3 + (1 - 3) * math.exp(-0.5)
    exact = middle * math.exp(-0.5)
    generator = FlowMatching(ClassifierFreeGuidance(Decay(), 3.0), 25, 1.0)
    errors = []
    for intervals in (8, 16, 32):
        sample = sampler_of(generator, limit_times(intervals, 1.5, 0.5), 0.5)
        errors.append(abs(sample(torch.ones(1, 1), torch.zeros(1, 1, 1)).item() - exact))
    assert errors[2] < 1e-4
    assert errors[0] / errors[1] > 3.2  # order 2
    # The sampler itself: 25 steps of Euler's method, the thirteenth of them guided across the edge.
    euler = generator.sample(torch.ones(1, 1), torch.zeros(1, 1, 1)).item()
    assert abs(euler - exact) > 20 * errors[2]


def test_latent_errors_are_taken_where_both_have_voxels():
    own = VoxelLatents(torch.tensor([[0, 0, 1], [3, 2, 1]]).numpy(), torch.tensor([[1.0, 0.0], [5.0, 5.0]]).numpy())
    reference = VoxelLatents(torch.tensor([[9, 9, 9], [0, 0, 1]]).numpy(), torch.tensor([[7.0, 7], [0.0, 2.0]]).numpy())
    # (1, 0) - (0, 2) has length sqrt 5, and (0, 2) length 2.
    assert latent_error(own, reference) == pytest.approx(math.sqrt(5) / 2)
    assert math.isnan(latent_error(None, reference))
    assert math.isnan(latent_error(own, VoxelLatents(reference.voxels[:1], reference.values[:1])))


def test_latents_on_other_voxels_than_the_structures_are_unknown():
    pipeline = tiny_pipeline()
    whole = pipeline.run(*picture(), seed=1)
    known = latents_of(whole)
    assert known is not None and len(known.voxels) == len(known.values) == len(whole.structure.coords)
    with fastsam3d.accelerate(pipeline, "random_drop"):
        dropped = pipeline.run(*picture(), seed=1)
    assert len(dropped.feats) < len(dropped.structure.coords)
    assert latents_of(dropped) is None
