"""`run(..., layout=False)`: the same shape from less work, and what is missing with the layout: fitted colours."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.errors import UserError
from fastsam3d.sam3d.models.flops import ModelFlops


def test_the_shape_is_the_same_and_the_pose_says_why_it_is_missing(pipeline, picture):
    pipeline = copy.copy(pipeline)
    pipeline.config = dataclasses.replace(pipeline.config, slat_color_channels=())
    whole = pipeline.run(*picture, seed=1)
    shape = pipeline.run(*picture, seed=1, layout=False)
    assert torch.equal(shape.structure.logits, whole.structure.logits)
    assert torch.equal(shape.feats, whole.feats)
    assert np.array_equal(shape.mesh.vertices, whole.mesh.vertices)
    assert set(shape.structure.latents) == {"shape"}
    assert whole.has_layout
    assert not shape.has_layout
    with pytest.raises(UserError, match="layout=True"):
        shape.pose.apply(torch.zeros(1, 3))
    with pytest.raises(UserError, match="layout=True"):
        shape.pose.to_dict()


def test_colours_are_fitted_to_the_picture_where_there_is_a_layout(pipeline, picture):
    whole = pipeline.run(*picture, seed=1)
    shape = pipeline.run(*picture, seed=1, layout=False)
    channels = list(pipeline.config.slat_color_channels)
    others = [i for i in range(whole.feats.shape[1]) if i not in channels]
    assert torch.equal(shape.feats[:, others], whole.feats[:, others])
    # An affine map of the colours, but for those that it took out of range.
    colors = torch.cat([shape.feats[:, channels], torch.ones(len(shape.feats), 1)], dim=1).double()
    fitted = whole.feats[:, channels].double()
    inside = (fitted.abs() < 1).all(dim=1)
    assert inside.sum() > 20
    change = torch.linalg.lstsq(colors[inside], fitted[inside]).solution
    torch.testing.assert_close(colors[inside] @ change, fitted[inside], atol=1e-4, rtol=0)
    assert (change[:3] - torch.eye(3)).abs().max() > 0.01


def test_the_pose_stream_does_not_run(pipeline, picture):
    block = pipeline.models["ss_generator"].reverse_fn.backbone.blocks[0]
    runs = []
    stream = "6drotation_normalized"
    handles = [m[stream].register_forward_hook(lambda *_: runs.append(1)) for m in (block.mlp, block.cross_attn)]
    with accelerate(pipeline, "exact"):
        pipeline.run(*picture, seed=1, layout=False)
    assert runs == []
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("settings", [{}, {"step_caching": True}, {"step_caching": True, "exact_layout": True}])
def test_accelerated_runs_leave_the_layout_out_too(pipeline, picture, settings):
    with accelerate(pipeline, "exact", **settings) as acceleration:
        whole = pipeline.run(*picture, seed=1)
        acceleration.reset_report()
        shape = pipeline.run(*picture, seed=1, layout=False)
        booked = acceleration.report().network_flops["sparse_structure"]
    difference = (shape.structure.logits - whole.structure.logits).norm() / whole.structure.logits.norm()
    assert float(difference) < 1e-5
    costs = ModelFlops(pipeline.config)
    assert booked.plain / costs.sparse_structure(layout=False).total == pytest.approx(9 + 7, abs=2)


def test_merged_voxels_are_fitted_as_well(pipeline, picture):
    with accelerate(pipeline, "uniform_merge"):
        whole = pipeline.run(*picture, seed=1)
        shape = pipeline.run(*picture, seed=1, layout=False)
    assert len(whole.feats) == len(shape.feats) < len(whole.structure.coords)
    channels = list(pipeline.config.slat_color_channels)
    assert not torch.allclose(whole.feats[:, channels], shape.feats[:, channels])
    assert "colored_by_picture" not in vars(pipeline)
