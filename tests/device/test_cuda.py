"""What only a CUDA device shows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from small_pipeline import SETTINGS, picture, small_pipeline
from torch.nn.attention import SDPBackend, sdpa_kernel

import fastsam3d
from fastsam3d.modules.elementwise import fused_kernels_work, set_fused
from fastsam3d.modules.sparse_tensor import SparseIndex
from fastsam3d.modules.windowed_attention import attend_in_packed_windows, attend_in_windows, has_packed_kernel
from fastsam3d.sam3d.models.precision import store_half
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PRESETS = ("off", "exact", "balanced", "paper", "fast")
DEVICE = torch.device("cuda", 0)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Without tf32, which PyTorch allows in convolutions, and without kernels that use it in attention."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def on_cuda(pipeline: Pipeline, autocast: torch.dtype | None = None) -> Pipeline:
    networks = {**dict(pipeline.models.items()), **pipeline.condition_embedders}
    for name, network in networks.items():
        if autocast is not None:
            store_half(name, network, autocast, DEVICE)
        network.to(DEVICE)
    return Pipeline(pipeline.models, pipeline.condition_embedders, pipeline.config, DEVICE, autocast)


def accelerated(pipeline: Pipeline, preset: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fastsam3d.accelerate(pipeline, preset, **(SETTINGS if preset in ("paper", "fast") else {}))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double().cpu(), b.double().cpu()
    return float((a - b).norm() / b.norm())


def overlap(a: Any, b: Any) -> float:
    """Intersection over union of two results' voxels."""
    first, second = ({tuple(c) for c in result.structure.coords.tolist()} for result in (a, b))
    return len(first & second) / len(first | second)


def test_shipped_model_on_cuda_equals_cpu() -> None:
    """One seed gives one object on every machine: noise is drawn on the CPU, arithmetic differs by rounding."""
    results = []
    with exact_arithmetic():
        for device in ("cpu", "cuda"):
            pipeline = fastsam3d.load_pipeline("mini", device=device)
            for name in ("ss_generator", "slat_generator"):
                pipeline.models[name].inference_steps = 8
            results.append(pipeline.run(*picture(), seed=3))
    cpu, cuda = results
    for name, value in cpu.structure.latents.items():
        assert relative(cuda.structure.latents[name], value) < 1e-2, name
    assert overlap(cuda, cpu) > 0.97
    np.testing.assert_allclose(cuda.mesh.vertices.min(0), cpu.mesh.vertices.min(0), atol=0.02)
    np.testing.assert_allclose(cuda.mesh.vertices.max(0), cpu.mesh.vertices.max(0), atol=0.02)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_on_cuda_equal_cpu(preset: str) -> None:
    cpu, cuda = small_pipeline(), on_cuda(small_pipeline())
    structure = []
    with exact_arithmetic():
        for pipeline in (cpu, cuda):
            with accelerated(pipeline, preset) as acceleration:
                result = pipeline.run(*picture(), formats=("mesh", "gaussian"))
                structure.append((result, acceleration.report()))
    (a, a_report), (b, b_report) = structure
    for name, value in a.structure.latents.items():
        assert relative(b.structure.latents[name], value) < 1e-3, name
    for stage, counts in a_report.stages.items():
        assert counts.evaluations == b_report.stages[stage].evaluations
    assert b.gaussian is not None
    assert len(b.mesh.faces) > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_remove_restores_on_cuda(preset: str) -> None:
    pipeline = on_cuda(small_pipeline(), torch.float16)
    networks = [*pipeline.models.modules()]
    before = [dict(vars(module)) for module in networks]
    plain = pipeline.run(*picture())
    acceleration = accelerated(pipeline, preset)
    pipeline.run(*picture())
    acceleration.remove()
    for module, attributes in zip(networks, before, strict=True):
        assert vars(module).keys() == attributes.keys()
    again = pipeline.run(*picture())
    assert overlap(again, plain) > 0.99
    assert relative(again.structure.latents["shape"], plain.structure.latents["shape"]) < 1e-3


@pytest.mark.parametrize(
    ("preset", "autocast"),
    [*((preset, torch.float16) for preset in PRESETS), ("balanced", None), ("balanced", torch.bfloat16)],
)
def test_structure_steps_do_not_wait(preset: str, autocast: torch.dtype | None) -> None:
    pipeline = on_cuda(small_pipeline(), autocast)
    generator = pipeline.models["ss_generator"]
    shapes = generator.reverse_fn.backbone.latent_shapes()
    noise = {name: torch.randn(shape, device=DEVICE) for name, shape in shapes.items()}
    condition = pipeline.embed_condition("sparse_structure", pipeline.preprocess(*picture()))
    with accelerated(pipeline, preset), torch.no_grad(), torch.autocast("cuda", autocast, enabled=autocast is not None):
        generator.sample(noise, condition)  # compiles and loads kernels
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")  # raises where the host waits
        try:
            latents = generator.sample(noise, condition)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(torch.isfinite(value).all() for value in latents.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_and_fused_kernels_stay_near_full_precision(dtype: torch.dtype) -> None:
    if not fused_kernels_work(DEVICE):
        pytest.skip("needs Triton")
    pipeline = small_pipeline()
    reference = pipeline.models["ss_generator"].reverse_fn.backbone.to(DEVICE)
    half = copy.deepcopy(pipeline.models["ss_generator"])
    store_half("ss_generator", half, dtype, DEVICE)
    x = {name: torch.randn(shape, device=DEVICE) for name, shape in reference.latent_shapes(2).items()}
    condition, time = torch.randn(2, 30, 64, device=DEVICE), torch.tensor([200.0, 700.0], device=DEVICE)
    with exact_arithmetic():
        expected = reference(x, time, condition)
    errors = {}
    for fused in (False, True):
        set_fused(half, fused)
        with torch.autocast("cuda", dtype):
            actual = half.reverse_fn.backbone(x, time, condition)
        errors[fused] = max(relative(actual[name], expected[name]) for name in expected)
    assert errors[False] < 5e-2
    assert errors[True] < 1.5 * errors[False] + 1e-3


def test_packed_windows_equal_padded_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    coords = torch.randint(0, 24, (3000, 3), generator=generator).unique(dim=0)
    coords = torch.cat([torch.zeros(len(coords), 1, dtype=coords.dtype), coords], dim=1).to(DEVICE)
    qkv = torch.randn(len(coords), 3, 4, 64, generator=generator).to(DEVICE, torch.float16)
    if not has_packed_kernel(qkv):
        pytest.skip("needs PyTorch 2.10 and compute capability 8.0")
    index = SparseIndex(coords)
    for shift in (0, 4):
        padded = attend_in_windows(qkv, index.windows(8, shift))
        packed = attend_in_packed_windows(qkv, index.packed_windows(8, shift))
        assert relative(packed, padded) < 3e-3


def test_tables_on_cuda_equal_those_on_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    coords = torch.randint(0, 40, (5000, 3), generator=generator).unique(dim=0)
    coords = torch.cat([torch.zeros(len(coords), 1, dtype=coords.dtype), coords], dim=1)
    cpu, cuda = SparseIndex(coords), SparseIndex(coords.to(DEVICE))
    assert torch.equal(cuda.neighbours().cpu(), cpu.neighbours())
    assert torch.equal(cuda.pooling().inverse.cpu(), cpu.pooling().inverse)
    assert torch.equal(cuda.subdivision().neighbours().cpu(), cpu.subdivision().neighbours())


def test_random_weights_are_built_on_the_device() -> None:
    pipeline = fastsam3d.load_pipeline("mini", device="cuda", random_weights=True, precision="float16")
    for network in (*pipeline.models.values(), *pipeline.condition_embedders.values()):
        assert {parameter.device.type for parameter in network.parameters()} == {"cuda"}
    block = pipeline.models["ss_generator"].reverse_fn.backbone.blocks[0]
    assert block.mlp["shape"].mlp[0].weight.dtype == torch.float16
    result = pipeline.run(*picture())
    assert torch.isfinite(result.feats).all()
