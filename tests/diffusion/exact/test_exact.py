"""Every exact saving alone, and all together, against the plain path."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.acceleration.family import find_host
from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.exact.cast_weights import CastWeights
from fastsam3d.diffusion.exact.index_cache import IndexCache
from fastsam3d.diffusion.exact.occupied_taps import occupied_pairs, paired_convolution
from fastsam3d.diffusion.exact.onednn import DenseConvolution, FusedFeedForward, fused_activation_works
from fastsam3d.diffusion.exact.saving import savings
from fastsam3d.diffusion.exact.shared_features import SharedFeatures

SWITCHES = [saving.name for saving in savings()]
EXACT = 1e-5
"""Relative difference in fp32 that only another order of additions explains."""


def distance(a, b):
    return float((a - b).norm() / b.norm())


def assert_equal(result, plain):
    assert distance(result.structure.logits, plain.structure.logits) < EXACT
    assert torch.equal(result.structure.coords, plain.structure.coords)
    assert distance(result.feats, plain.feats) < EXACT
    for name, latent in plain.structure.latents.items():
        assert distance(result.structure.latents[name], latent) < EXACT
    assert torch.allclose(result.pose.translation, plain.pose.translation, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_saving_alone_changes_nothing(pipeline, picture, switch):
    plain = pipeline.run(*picture, seed=1)
    settings = {f"exact.{switch}": True}
    if switch == "joint_branches":
        settings["exact.zero_condition"] = True
    with accelerate(pipeline, "off", **settings):
        assert_equal(pipeline.run(*picture, seed=1), plain)


@pytest.mark.parametrize("switch", [None, *SWITCHES])
def test_all_savings_but_one_change_nothing(pipeline, picture, switch):
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "exact", **({} if switch is None else {f"exact.{switch}": False})):
        assert_equal(pipeline.run(*picture, seed=1), plain)
        assert_equal(pipeline.run(*picture, seed=1), plain)  # and nothing kept spoils the next run


def test_branches_go_through_in_one_pass(pipeline, picture):
    backbone = pipeline.models["ss_generator"].reverse_fn.backbone
    batches = []
    handle = backbone.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0]["shape"].shape[0]))
    with accelerate(pipeline, "exact") as acceleration:
        pipeline.run(*picture, seed=1)
        done = acceleration.report().stages["sparse_structure"]
    handle.remove()
    assert batches.count(2) == done.unconditional_computed > 0
    assert batches.count(1) == done.conditional_computed - done.unconditional_computed


def test_time_modules_run_once(pipeline, picture):
    for stage in ("ss_generator", "slat_generator"):
        block = pipeline.models[stage].reverse_fn.backbone.blocks[0]
        rows = []
        handle = block.adaLN_modulation[1].register_forward_hook(lambda *a, rows=rows: rows.append(len(a[2])))
        with accelerate(pipeline, "exact"):
            pipeline.run(*picture, seed=1)
        handle.remove()
        assert rows == [pipeline.models[stage].inference_steps]


def test_tables_are_shared_by_generator_and_decoder(pipeline, picture):
    made = []
    for maker in (pipeline.models["slat_generator"].reverse_fn.backbone, pipeline.models["slat_decoder_mesh"]):
        original = type(maker).make_index
        vars(maker)["make_index"] = lambda coords, f=original, m=maker: made.append(len(coords)) or f(m, coords)
    with accelerate(pipeline, "exact"):
        first = pipeline.run(*picture, seed=1)
        assert made == [len(first.structure.coords)]
        second = pipeline.run(*picture, seed=2)
    assert made == [len(first.structure.coords), len(second.structure.coords)]


def test_what_was_written_to_meanwhile_is_not_taken_for_what_it_was():
    coords, picture = torch.zeros(3, 4, dtype=torch.int32), torch.zeros(1, 2)
    make_index, encode = IndexCache().wrap(lambda c: c.tolist()), SharedFeatures().wrap(lambda p: p.tolist())
    assert make_index(coords) is make_index(coords.clone())
    assert encode(picture) is encode(picture.clone())
    for function, given in ((make_index, coords), (encode, picture)):
        given += 1
        assert function(given) == given.tolist()
        assert function(given.clone()) == given.tolist()


def test_occupied_pairs_by_hand():
    # Two voxels side by side along z: columns 12 (dz -1), 13 (itself), 14 (dz +1).
    table = torch.full((2, 27), 2)
    table[0, 13], table[1, 13], table[0, 14], table[1, 12] = 0, 1, 1, 0
    pairs = occupied_pairs(table)
    assert [len(own) for own, _ in pairs] == [0] * 12 + [1, 2, 1] + [0] * 12
    taps = torch.zeros(27, 1, 1)
    taps[12], taps[13], taps[14] = 1.0, 10.0, 100.0
    out = paired_convolution(torch.tensor([[1.0], [2.0]]), taps, torch.tensor([0.5]), pairs)
    assert out.tolist() == [[10.0 + 200.0 + 0.5], [20.0 + 1.0 + 0.5]]


def test_weights_are_cast_once_and_followed():
    layer = torch.nn.Linear(4, 3).requires_grad_(False)
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    cast = CastWeights(layer)
    forward = cast.wrap(layer.forward)
    assert torch.equal(forward(x), layer(x))  # no autocast, no cast
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(forward(x), layer(x))
        kept = cast._cast[0]
        forward(x)
        assert cast._cast[0] is kept
        layer.weight.mul_(2)
        assert torch.equal(forward(x), layer(x))
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(forward(x), layer(x))


def onednn_is_asked(monkeypatch):
    """Counts the calls of oneDNN's convolution and goes on."""
    calls = []
    convolution = torch.ops.aten.mkldnn_convolution
    monkeypatch.setattr(torch.ops.aten, "mkldnn_convolution", lambda *a: calls.append(1) or convolution(*a))
    return calls


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch was built without oneDNN")
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"padding": 0}, {"groups": 2}, {"bias": False}])
def test_dense_convolutions_by_onednn(settings, monkeypatch):
    calls = onednn_is_asked(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Conv3d(4, 6, 3, **{"padding": 1} | settings).requires_grad_(False)
    x = torch.randn(2, 4, 5, 6, 7, generator=generator)
    forward = DenseConvolution(layer).wrap(layer.forward)
    with torch.no_grad():
        where = layer.stride, layer.padding, 1, layer.groups
        expected = torch.nn.functional.conv3d(x.double(), layer.weight.double(), None, *where)
        if layer.bias is not None:
            expected += layer.bias.double().view(-1, 1, 1, 1)
        out = forward(x)
        assert distance(out, expected) < EXACT
        assert out.is_contiguous(memory_format=torch.channels_last_3d)
        layer.weight.mul_(2)  # changed weights are followed
        assert distance(forward(x), layer(x)) < EXACT
        assert len(calls) == 2
        with torch.autocast("cpu", torch.bfloat16):
            assert forward(x).dtype == torch.bfloat16
    assert forward(x.requires_grad_()).requires_grad
    assert len(calls) == 2  # it rests under autocast and where gradients are wanted


@pytest.mark.parametrize("form", ["tanh", "none"])
def test_fused_feed_forward_by_definition(form):
    generator = torch.Generator().manual_seed(0)
    first, last = torch.nn.Linear(3, 8), torch.nn.Linear(8, 3)
    sequence = torch.nn.Sequential(first, torch.nn.GELU(approximate=form), last).requires_grad_(False)
    x = torch.randn(2, 5, 3, generator=generator)
    hidden = (x @ first.weight.t() + first.bias).double()
    if form == "tanh":
        activated = hidden / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    else:
        activated = hidden / 2 * (1 + torch.erf(hidden / 2**0.5))
    expected = activated @ last.weight.double().t() + last.bias.double()
    passes = []
    sequence[1].register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        assert distance(FusedFeedForward(sequence).wrap(sequence.forward)(x), expected) < EXACT
    assert bool(passes) is not fused_activation_works()  # the activation is no pass of its own


def test_the_small_model_uses_onednn(pipeline, picture, monkeypatch):
    calls = onednn_is_asked(monkeypatch)
    with accelerate(pipeline, "exact"):
        pipeline.run(*picture, seed=1)
    expected = len(find_host(pipeline).dense_convolutions())
    assert expected > 3
    assert len(calls) == (expected if torch.backends.mkldnn.is_available() else 0)


def test_cast_weights_give_the_same_bits_under_autocast(pipeline, picture):
    pipeline.autocast = torch.bfloat16
    plain = pipeline.run(*picture, seed=1)
    assert len(find_host(pipeline).cast_layers()) > 20
    with accelerate(pipeline, "off", **{"exact.cast_weights": True}):
        result = pipeline.run(*picture, seed=1)
    assert torch.equal(result.feats, plain.feats)
    assert torch.equal(result.structure.logits, plain.structure.logits)
    assert all(p.dtype == torch.float32 for p in pipeline.models.parameters())


def test_techniques_inside_the_network_see_one_branch_at_a_time(pipeline):
    with accelerate(pipeline, "exact", step_caching=True) as acceleration:
        assert acceleration._attached.runners["sparse_structure"].state.joint
    with accelerate(pipeline, "exact", step_caching=True, exact_layout=True) as acceleration:
        assert not acceleration._attached.runners["sparse_structure"].state.joint
    with accelerate(pipeline, "exact", **{"exact.zero_condition": False}) as acceleration:
        assert not acceleration._attached.runners["sparse_structure"].state.joint


def test_whole_pictures_are_encoded_once_for_the_objects_of_a_scene(pipeline, picture):
    image, mask = picture
    other = mask.copy()
    other[:20] = False
    plain = [pipeline.run(image, m, seed=1) for m in (mask, other)]
    encoder = pipeline.condition_embedders["ss_condition_embedder"].module_list[0].backbone
    runs = []
    handle = encoder.blocks[0].register_forward_hook(lambda *_: runs.append(1))
    with accelerate(pipeline, "off", **{"exact.shared_features": True}) as acceleration:
        for m, expected in zip((mask, other), plain, strict=True):
            assert torch.equal(pipeline.run(image, m, seed=1).feats, expected.feats)
        # Two crops and one whole picture instead of four pictures.
        assert len(runs) == 3
        report = acceleration.report()
        # Another picture: nothing of the old one is used.
        pipeline.run(255 - image, mask, seed=1)
        assert len(runs) == 5
    handle.remove()
    saved = report.savings()["flop_by_exact_saving"]["shared_features"]
    costs = find_host(pipeline).costs()
    assert saved == costs.encoder("sparse_structure", "image") + costs.encoder("structured_latent", "image")
    assert report.network_flops["ss_condition"].saved_exact == costs.encoder("sparse_structure", "image")
    assert "different weights" in str(report)


def test_stages_share_encoders_of_equal_weights(pipeline, picture):
    first, second = (pipeline.condition_embedders[f"{n}_condition_embedder"].module_list for n in ("ss", "slat"))
    for index in (0, 1):
        second[index].backbone.load_state_dict(first[index].backbone.state_dict())
    plain = pipeline.run(*picture, seed=1)
    runs = []
    for module in (first[0], second[0]):
        module.backbone.blocks[0].register_forward_hook(lambda *_: runs.append(1))
    with accelerate(pipeline, "off", **{"exact.shared_features": True}) as acceleration:
        assert torch.equal(pipeline.run(*picture, seed=1).feats, plain.feats)
        assert len(runs) == 2
        assert "equal weights" in str(acceleration.report())
        # Other weights while accelerated: they are noticed, and the stages no longer share.
        with torch.no_grad():
            second[0].backbone.cls_token.mul_(2)
        changed = pipeline.run(*picture, seed=1)
    assert torch.equal(pipeline.run(*picture, seed=1).feats, changed.feats)
    assert not torch.equal(changed.feats, plain.feats)
