"""Weights that change while a pipeline is accelerated: nothing that was made of the old ones is used."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.exact.cast_weights import CastWeights
from fastsam3d.diffusion.exact.shared_features import SharedDepth
from fastsam3d.modules.tensor_versions import count_change, place_and_version
from fastsam3d.sam3d.checkpoints.folder import load_strictly
from fastsam3d.sam3d.memory.residency import StagedWeights


def doubled(module):
    return {name: 2 * value for name, value in module.state_dict().items()}


def assign_data(module):
    for parameter in module.parameters():
        parameter.data = 2 * parameter.data


def new_parameters(module):
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(2 * parameter.detach(), requires_grad=False))


CHANGES = {
    "parameter.data = values": assign_data,
    "our own loader": lambda module: load_strictly(module, doubled(module), "memory"),
    "load_state_dict": lambda module: module.load_state_dict(doubled(module)),
    "load_state_dict(assign=True)": lambda module: module.load_state_dict(doubled(module), assign=True),
    "new parameters": new_parameters,
    "in place": lambda module: [parameter.mul_(2) for parameter in module.parameters()],
}


def encoder(pipeline):
    return pipeline.condition_embedders["ss_condition_embedder"].module_list[0].backbone


@pytest.mark.parametrize("change", CHANGES)
def test_encodings_of_old_weights_are_not_used(pipeline, picture, change):
    with accelerate(pipeline, "off", **{"exact.shared_features": True}):
        before = pipeline.run(*picture, seed=1)
        CHANGES[change](encoder(pipeline))
        changed = pipeline.run(*picture, seed=1)
    assert torch.equal(changed.feats, pipeline.run(*picture, seed=1).feats)
    assert not torch.equal(changed.structure.logits, before.structure.logits)


@pytest.mark.parametrize("change", ["parameter.data = values", "our own loader", "in place"])
def test_nor_where_a_memory_budget_moves_the_weights(pipeline, make_pipeline, picture, change):
    plain = make_pipeline()
    CHANGES[change](encoder(plain))
    expected = plain.run(*picture, seed=1)
    networks = {**dict(pipeline.models.items()), **pipeline.condition_embedders}
    pipeline.residency = StagedWeights(networks, torch.device("cpu"))
    calls = []
    encoder(pipeline).blocks[0].register_forward_hook(lambda *_: calls.append(1))
    with accelerate(pipeline, "off", **{"exact.shared_features": True}):
        pipeline.run(*picture, seed=1)
        once = len(calls)
        pipeline.run(*picture, seed=1)
        assert len(calls) == once  # moving the weights is no change
        CHANGES[change](encoder(pipeline))
        assert torch.equal(pipeline.run(*picture, seed=1).feats, expected.feats)


def test_depth_of_old_weights_is_not_used():
    model = nn.Linear(3, 3).requires_grad_(False)
    depth, picture = SharedDepth(model), torch.ones(1, 3)
    assert depth(picture) is depth(picture)
    assign_data(model)
    assert torch.equal(depth(picture), model(picture))


def test_casts_of_old_weights_are_not_used():
    layer = nn.Linear(4, 3).requires_grad_(False)
    forward, x = CastWeights(layer).wrap(layer.forward), torch.ones(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        for change in CHANGES.values():
            forward(x)
            change(layer)
            assert torch.equal(forward(x), layer(x))


def test_a_change_is_counted_also_where_pytorch_does_not_see_it():
    with torch.inference_mode():
        uncounted = torch.ones(2)
    tensor = torch.ones(2)
    before = place_and_version(tensor)
    tensor.data.mul_(2)
    assert place_and_version(tensor) == before  # the one way that is not seen
    count_change([tensor, uncounted])
    assert place_and_version(tensor) != before
