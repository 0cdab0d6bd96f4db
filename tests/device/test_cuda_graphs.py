"""Replayed CUDA graphs against ordinary evaluations, on a real device."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from small_pipeline import small_pipeline

import fastsam3d
from fastsam3d.sam3d.models.precision import store_half
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICE = torch.device("cuda", 0)
GRAPHS = {"exact.cuda_graphs": True}


def on_cuda(autocast: torch.dtype | None) -> Pipeline:
    pipeline = small_pipeline()
    for name, network in {**dict(pipeline.models.items()), **pipeline.condition_embedders}.items():
        if autocast is not None:
            store_half(name, network, autocast, DEVICE)
        network.to(DEVICE)
    return Pipeline(pipeline.models, pipeline.condition_embedders, pipeline.config, DEVICE, autocast)


def sampled(pipeline: Pipeline, number: int) -> dict[str, torch.Tensor]:
    """The first stage of one of several objects."""
    image = np.random.default_rng(number).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    mask = np.zeros((48, 48), bool)
    mask[10:36, 8 + number : 30 + 2 * number] = True
    condition = pipeline.embed_condition("sparse_structure", pipeline.preprocess(image, mask))
    return pipeline.sample_sparse_structure(condition, torch.Generator().manual_seed(number)).latents


def replay_of(acceleration: Any) -> Any:
    return acceleration._attached.runners["sparse_structure"].replay


@pytest.mark.parametrize("autocast", [None, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("preset", ["off", "exact", "balanced"])
@pytest.mark.parametrize("joint", [True, False])
def test_objects_in_a_row_equal_ordinary_runs(preset: str, autocast: torch.dtype | None, joint: bool) -> None:
    changes = {} if preset == "off" else {"exact.joint_branches": joint}
    pipeline = on_cuda(autocast)
    tolerance = 1e-3 if autocast is None else 3e-2
    with fastsam3d.accelerate(pipeline, preset, **changes):
        expected = [sampled(pipeline, number) for number in range(4)]
    with fastsam3d.accelerate(pipeline, preset, **changes, **GRAPHS) as acceleration:
        actual = [sampled(pipeline, number) for number in range(4)]
        assert replay_of(acceleration).refusal is None
        assert replay_of(acceleration).recorded >= 1
        assert replay_of(acceleration).replayed > 4
    for number, (a, b) in enumerate(zip(actual, expected, strict=True)):
        for name in b:
            error = float((a[name] - b[name]).norm() / b[name].norm())
            assert error < tolerance, (number, name, error)
    different = float((expected[0]["shape"] - expected[1]["shape"]).norm() / expected[0]["shape"].norm())
    assert different > 5 * tolerance, "objects that are alike cannot tell whether a stale input was read"


def test_removed_graphs_leave_no_memory_and_the_plain_pipeline() -> None:
    pipeline = on_cuda(torch.float16)
    plain = sampled(pipeline, 0)
    held = []
    for _ in range(3):
        with fastsam3d.accelerate(pipeline, "exact", **GRAPHS) as acceleration:
            for number in range(2):
                sampled(pipeline, number)
            assert replay_of(acceleration).recorded > 0
        del acceleration
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        held.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    # The first round leaves the libraries' workspaces of the recording's stream behind, the others nothing.
    assert held[2][0] <= held[0][0] + 2**20, held
    assert held[2][1] <= held[0][1] + 2 * 2**20, held
    again = sampled(pipeline, 0)
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], rtol=1e-2, atol=1e-2)


def test_a_step_that_waits_runs_as_ever() -> None:
    pipeline = on_cuda(None)
    with fastsam3d.accelerate(pipeline, "exact"):
        expected = [sampled(pipeline, number) for number in range(2)]
    block = pipeline.models["ss_generator"].reverse_fn.backbone.blocks[1]
    forward = block.forward

    def waiting(x: Any, *args: Any) -> Any:
        float(x["shape"].sum())
        return forward(x, *args)

    vars(block)["forward"] = waiting
    stream = torch.cuda.current_stream()
    with fastsam3d.accelerate(pipeline, "exact", **GRAPHS) as acceleration:
        actual = [sampled(pipeline, number) for number in range(2)]
        assert "recording failed" in replay_of(acceleration).refusal
    assert torch.cuda.current_stream() == stream
    for a, b in zip(actual, expected, strict=True):
        for name in b:
            torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)


def test_staged_weights_leave_graphs_out() -> None:
    from fastsam3d.sam3d.memory.residency import StagedWeights

    pipeline = small_pipeline()
    networks = {**dict(pipeline.models.items()), **pipeline.condition_embedders}
    pipeline.residency, pipeline.device = StagedWeights(networks, DEVICE), DEVICE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fastsam3d.accelerate(pipeline, "exact", **GRAPHS) as acceleration:
            sampled(pipeline, 0)
            assert "moves its weights" in replay_of(acceleration).refusal
