"""A pipeline of boxes and balls with real samplers, for tests of the benchmark and of quality."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from evaluation_shapes import Ball, Pose, box_mesh
from torch import nn

from fastsam3d.sam3d.models.flow_matching import ClassifierFreeGuidance, FlowMatching

POINTS = 500


class Backbone(nn.Module):
    """A velocity that is one number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x, time, condition, cfg=False):
        # One product of matrices an evaluation, so that there are operations to count.
        return (x.reshape(-1, 1) @ self.weight.reshape(1, 1)).reshape(x.shape) * 0 + self.weight


class StandIn:
    """Returns a box whose size follows the seed's noise; `error` is what a bad method adds to it."""

    def __init__(self) -> None:
        self.models = nn.ModuleDict(
            {
                "ss_generator": FlowMatching(ClassifierFreeGuidance(Backbone(), 2.0), 25, 3.0),
                "slat_generator": FlowMatching(ClassifierFreeGuidance(Backbone(), 1.0), 25, 1.0),
            }
        )
        self.condition_embedders = {}
        self.error, self.calls = 0.0, []

    @torch.no_grad()
    def run(self, image, mask, *, seed=0, pointmap=None, formats=("mesh",), progress=None):
        self.calls.append((seed, self.error))
        for generator in self.models.values():
            generator.sample(torch.zeros(1, 1), torch.zeros(1, 1, 1))
        noise = torch.rand(1, generator=torch.Generator().manual_seed(seed)).item() * 0.05
        vertices, faces = box_mesh((-0.3 - noise - self.error,) * 3, (0.3,) * 3)
        mesh = SimpleNamespace(vertices=vertices, faces=faces, vertex_colors=np.full((8, 3), 0.5))
        return SimpleNamespace(
            mesh=mesh, pose=Pose(translation=(0, self.error, 4)), stage_seconds={"sparse_structure": 0.01}
        )


def make_view(seed: int):
    """A ball before a camera."""
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    return SimpleNamespace(
        object=Ball(0.35, seed),
        image=image,
        mask=np.ones((8, 8), bool),
        pointmap=None,
        pose=Pose((1, 0, 0, 0), (0, 0, 4)),
    )


@contextmanager
def with_error(pipeline: StandIn, error: float, steps: int = 25):
    """A method that is wrong by `error` and takes `steps` steps."""
    pipeline.error = error
    for generator in pipeline.models.values():
        generator.inference_steps = steps
    try:
        yield
    finally:
        pipeline.error = 0.0
        for generator in pipeline.models.values():
            generator.inference_steps = 25
