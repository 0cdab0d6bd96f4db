"""Exact savings of TRELLIS.2, one by one on the stand-in: equal results, and what each spares, counted."""

from __future__ import annotations

import pytest
import torch
from host_stand_ins.networks import CONDITION, WIDTH
from host_stand_ins.trellis2 import Pixal3DImageTo3DPipeline, Trellis2ImageTo3DPipeline
from host_stand_ins.trellis2_networks import LatentFlow, SparseConv3d, SparseTensor
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from trellis2_checks import assert_same, distance, run, seeded

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.hosts.trellis2.costs import FlowSizes, sizes_of

SHORT = {"steps": 3}
SWITCHES = ("zero_condition", "condition_cache", "shared_prefix", "decoder_tables", "bare_coordinates")


@pytest.fixture(scope="module")
def pipeline():
    return seeded(Trellis2ImageTo3DPipeline)


@pytest.fixture(scope="module")
def image():
    return Image.new("RGB", (16, 16), (200, 100, 50))


@pytest.fixture(scope="module")
def plain(pipeline, image):
    return {mode: run(pipeline, image, mode, **SHORT) for mode in ("512", "1024_cascade")}


def counted(pipeline, image, mode, switch):
    """Result, tables built, convolutions, packed attentions and report of a run with one saving."""
    modules = [m for model in pipeline.models.values() for m in model.modules()]
    convolutions = [m for m in modules if isinstance(m, SparseConv3d)]
    packed = [m for m in modules if hasattr(m, "packed") and not m.is_cross]
    for module in convolutions:
        module.calls = module.built = 0
    for module in packed:
        module.packed = 0
    options = {} if switch is None else {f"exact.{switch}": True}
    with accelerate(pipeline, "off", **options) as acceleration:
        result = run(pipeline, image, mode, **SHORT)
        report = acceleration.report()
    built, calls = (sum(getattr(m, name) for m in convolutions) for name in ("built", "calls"))
    return result, built, calls, sum(m.packed for m in packed), report


@pytest.mark.parametrize("mode", ["512", "1024_cascade"])
@pytest.mark.parametrize("switch", [*SWITCHES, "unpacked_attention"])
def test_each_saving_alone_gives_the_same(pipeline, image, plain, mode, switch):
    result = counted(pipeline, image, mode, switch)[0]
    if switch in ("decoder_tables", "bare_coordinates", "shared_prefix"):
        assert_same(result, plain[mode])  # the very same operations
    else:
        assert distance(result, plain[mode]) < 1e-5


def test_the_texture_decoder_takes_the_tables_of_the_shape_decoder(pipeline, image):
    # Five levels each; the coarsest of the texture is the shape's own. A cascade decodes the coarse shape as well.
    assert [counted(pipeline, image, mode, None)[1] for mode in ("512", "1024_cascade")] == [9, 14]
    assert [counted(pipeline, image, mode, "decoder_tables")[1] for mode in ("512", "1024_cascade")] == [5, 10]


def test_coordinates_come_without_the_features_of_their_level(pipeline, image):
    _, built, calls, _, _ = counted(pipeline, image, "1024_cascade", None)
    _, fewer_built, fewer_calls, _, _ = counted(pipeline, image, "1024_cascade", "bare_coordinates")
    assert (built - fewer_built, calls - fewer_calls) == (1, 2)  # both convolutions of the last block
    assert counted(pipeline, image, "512", "bare_coordinates")[2] == counted(pipeline, image, "512", None)[2]


def test_one_object_is_not_packed(pipeline, image):
    packed = counted(pipeline, image, "512", None)[3]
    # Shape: three steps of two passes through two blocks, the last of them exactly on the edge; texture: three passes.
    assert packed == (3 + 3 + 3) * 2
    assert counted(pipeline, image, "512", "unpacked_attention")[3] == 0


def test_tables_do_not_outlive_the_object(pipeline, image):
    with accelerate(pipeline, "off", **{"exact.decoder_tables": True}):
        first = run(pipeline, image, "512", **SHORT)
        other = run(pipeline, image, "512", seed=2, **SHORT)
        assert_same(run(pipeline, image, "512", **SHORT), first)
    assert_same(run(pipeline, image, "512", seed=2, **SHORT), other)


# --- operations


def test_operations_of_a_pass_are_those_that_are_counted():
    network = LatentFlow(8, texture=True)
    sizes = sizes_of(network, network.blocks[0].cross_attn)
    assert sizes == FlowSizes(WIDTH, 2 * WIDTH, 2, 8, 4, CONDITION, True, 0)
    coords = torch.argwhere(torch.ones(1, 3, 3, 3)).int()
    x = SparseTensor(torch.randn(27, 4), coords)
    with FlopCounterMode(display=False) as counter:
        network(x, torch.tensor([500.0]), torch.randn(1, 5, CONDITION), concat_cond=x)
    parts = sizes.one_pass(27, 5)
    # PyTorch does not count the core of attention on a CPU. The stand-in's modulation has two vectors instead of six.
    core = 2 * 4 * 27 * (27 + 5) * WIDTH
    assert counter.get_total_flops() == parts.total - core - parts.modulation + 4 * WIDTH**2


def test_a_pass_at_full_size():
    sizes = FlowSizes(width=1536, hidden=8192, blocks=30, inputs=32, outputs=32, condition=1024)
    parts = sizes.one_pass(9600, 4101)
    assert parts.condition == 30 * 2 * 4101 * 1024 * 2 * 1536  # keys and values
    assert pytest.approx(17.0e12, rel=0.01) == 4 * 9600**2 * 1536 * 30  # the core of self-attention
    assert parts.cross + parts.condition == pytest.approx(10.8e12, rel=0.01)
    assert parts.total == pytest.approx(47.7e12, rel=0.01)
    assert sizes.one_pass(4096, 1029).total == pytest.approx(13.7e12, rel=0.01)


@pytest.mark.parametrize("switch", ["zero_condition", "condition_cache", "shared_prefix"])
def test_the_report_says_what_a_saving_spares(pipeline, image, switch):
    report = counted(pipeline, image, "512", switch)[4]
    network = pipeline.models["sparse_structure_flow_model"]
    parts = sizes_of(network, network.blocks[0].cross_attn).one_pass(64, 4)
    stage = report.network_flops["sparse_structure"]
    # Three steps at rescale 5 begin at 1, 0.91 and 0.71: all are guided.
    assert stage.plain == 6 * parts.total
    spared = {
        "zero_condition": 3 * (parts.cross + parts.condition),
        "condition_cache": 4 * parts.condition,
        "shared_prefix": 3 * parts.prefix_tokens,
    }[switch]
    assert stage.saved_exact == pytest.approx(spared)
    assert stage.saved_approximate == pytest.approx(0, abs=1)


# --- a condition that every token has for itself


class Rows:
    """Counts the rows that a layer computes."""

    def __init__(self, layer):
        self.layer, self.original, self.count = layer, layer.forward, 0
        layer.forward = self

    def __call__(self, x):
        self.count += x.shape[:-1].numel()
        return self.original(x)


@pytest.mark.parametrize("mode", ["512", "1024_cascade"])
def test_a_condition_of_each_token_is_projected_once_a_run(image, mode):
    pipeline = seeded(Pixal3DImageTo3DPipeline)
    plain = run(pipeline, image, mode, **SHORT)
    network = pipeline.models["sparse_structure_flow_model"]
    layers = [Rows(block.cross_attn.proj_linear) for block in network.blocks]
    rows = []
    for switches in ((), ("condition_cache",), ("zero_condition",), ("condition_cache", "zero_condition")):
        for layer in layers:
            layer.count = 0
        with accelerate(pipeline, "off", **{f"exact.{name}": True for name in switches}) as acceleration:
            result = run(pipeline, image, mode, **SHORT)
            flops = acceleration.report().network_flops["sparse_structure"]
        assert distance(result, plain) < 1e-5
        rows.append([layer.count for layer in layers])
        parts = sizes_of(network, network.blocks[0].cross_attn.cross_attn_block).one_pass(64, 4)
        # Three guided steps: six passes; keys and values and the projections of 64 tokens.
        left = {0: 6 * parts.condition, 1: 2 * parts.condition}.get(len(switches), parts.condition)
        if switches == ("zero_condition",):
            left = 3 * parts.condition
        cross = parts.cross * (3 if "zero_condition" in switches else 6)
        assert flops.computed == pytest.approx(6 * (parts.tokens + parts.rest) + cross + left)
    # 64 tokens; one row of a condition of zeros in each of three unconditional passes.
    assert rows == [[6 * 64] * 2, [2 * 64] * 2, [3 * 64 + 3] * 2, [64 + 1] * 2]
    assert parts.condition == 2 * (4 * 4 * CONDITION * WIDTH + 2 * 64 * CONDITION * WIDTH)
    network.blocks[0].cross_attn.proj_linear.forward = layers[0].original


def test_chosen_tokens_take_their_rows_of_the_kept_projection():
    """Carving with and without the kept projections of Pixal3D gives the same."""
    pipeline, image = seeded(Pixal3DImageTo3DPipeline), Image.new("RGB", (16, 16), (200, 100, 50))
    carving = {"enabled": True, "carved_fraction": 0.4, "warmup": 1}
    results = []
    for kept in (False, True):
        with accelerate(pipeline, "off", token_carving=carving, **{"exact.condition_cache": kept}) as acceleration:
            results.append(run(pipeline, image, "1024_cascade", steps=6))
            assert acceleration.report().stages["shape_1024"].tokens_kept < 1
    assert distance(*results) < 1e-5
