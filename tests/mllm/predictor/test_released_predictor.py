"""The published predictor: its sizes, its spatial attention against a plain loop, and strict loading."""

from __future__ import annotations

import math

import pytest
import torch

from fastsam3d.errors import UserError
from fastsam3d.mllm.predictor.released import (
    ReleasedPredictor,
    ReleasedSizes,
    ReleasedSpatialAttention,
    TextEncoderSizes,
    load_released_predictor,
)
from fastsam3d.mllm.predictor.spatial import hiding, pair_features

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'fastsam3d[mllm]'")

TEXT = TextEncoderSizes(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=20,
)
SMALL = ReleasedSizes(width=24, heads=3, layers=2, feed_forward=16, features=10, slots=8, text=TEXT)


def small() -> ReleasedPredictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ReleasedPredictor(SMALL).eval()


def inputs():
    generator = torch.Generator().manual_seed(0)
    return {
        "text_ids": torch.tensor([[0, 7, 9, 2], [0, 8, 2, 1]]),
        "text_present": torch.tensor([[True, True, True, True], [True, True, True, False]]),
        "features": torch.randn(2, 5, 10, generator=generator),
        "boxes": torch.rand(2, 5, 6, generator=generator),
        "present": torch.tensor([[True] * 5, [True] * 4 + [False]]),
    }


def test_parameters_of_each_part_are_those_of_the_published_network():
    with torch.device("meta"):
        network = ReleasedPredictor()
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in network.named_children()}
    assert counts == {
        "text_encoder": 124_645_632,
        "text_projector": 590_592,
        "obj_feat_projector": 1_573_632,
        "obj_id_embedding": 76_800,
        "mm_encoder": 6_912 + 31_739_168,
        "out_head_attn": 296_449,
    }
    assert sum(counts.values()) == 158_929_185
    assert sum(weight.numel() for weight in network.mm_encoder.layers[0].parameters()) == 7_934_792
    names = {name.rpartition(".")[0] for name in network.mm_encoder.layers[3].state_dict()}
    attention = {f"self_attn.{part}" for part in ("w_qs", "w_ks", "w_vs", "fc", "layer_norm", "lang_cond_fc")}
    others = {"multihead_attn", "multihead_attn.out_proj", "linear1", "linear2", "norm1", "norm2", "norm3"}
    assert names == attention | others
    assert {"0", "2", "4"} == {name.partition(".")[0] for name in network.out_head_attn.state_dict()}
    assert {"loc_layers.0.0.weight", "loc_layers.0.1.bias"} <= network.mm_encoder.state_dict().keys()


def test_spatial_attention_equals_a_plain_loop():
    generator = torch.Generator().manual_seed(4)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        attention = ReleasedSpatialAttention(24, 3).eval()
    for weight in attention.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.4
    objects, topic = torch.randn(1, 4, 24, generator=generator), torch.randn(1, 1, 24, generator=generator)
    centres = torch.rand(1, 4, 3, generator=generator) * 3
    there = [True, True, False, True]
    with torch.no_grad():
        found = attention(objects, topic, pair_features(centres), hiding(torch.tensor([there])))[0]
        query, key, value = (layer(objects[0]) for layer in (attention.w_qs, attention.w_ks, attention.w_vs))
        conditions = attention.lang_cond_fc(objects[0] + topic[0])
    c = centres[0].double().tolist()
    longest = max(math.dist(a, b) for a in c for b in c)
    rows = []
    for i in range(4):
        parts = []
        for head in range(3):
            cut = slice(8 * head, 8 * head + 8)
            bias, *weights = conditions[i, 6 * head : 6 * head + 6].tolist()
            scores = []
            for j in range(4):
                dx, dy, dz = (c[i][axis] - c[j][axis] for axis in range(3))
                d = math.sqrt(dx * dx + dy * dy + dz * dz + 1e-10)
                flat = math.sqrt(dx * dx + dy * dy + 1e-10)
                f = (d / longest, dz / d, flat / d, dy / flat, dx / flat)
                share = 1 / (1 + math.exp(-bias - sum(w * x for w, x in zip(weights, f, strict=True))))
                score = float(query[i, cut] @ key[j, cut]) / math.sqrt(8) + math.log(max(share, 1e-6))
                scores.append(math.exp(score) if there[j] else 0.0)
            shares = [score / sum(scores) for score in scores]
            parts.append(sum(share * value[j, cut] for j, share in enumerate(shares)))
        rows.append(torch.cat(parts))
    with torch.no_grad():
        expected = attention.layer_norm(objects[0] + attention.fc(torch.stack(rows)))
    assert torch.allclose(found, expected, atol=1e-4)


@torch.no_grad()
def test_padding_of_text_and_objects_changes_nothing():
    network, given = small(), inputs()
    logits = network(**given)
    assert logits.dtype == torch.float32 and logits[1, 4] == -1e4
    alone = {name: value[1:, : 3 if name.startswith("text") else 4] for name, value in given.items()}
    # The largest distance is taken over all slots, so that what fills up must not lie outside.
    given["boxes"][1, 4] = given["boxes"][1, 0]
    assert torch.allclose(network(**given)[1, :4], network(**alone)[0], atol=1e-5)
    with pytest.raises(UserError, match="knows 8 objects, and 9 were given"):
        network(**given | {"features": torch.zeros(2, 9, 10)})


def test_a_checkpoint_loads_by_its_names(tmp_path):
    network = small()
    state = network.state_dict()
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": 3, "optimizer_state_dict": {"state": {}}, "model_state_dict": state}, path)
    random = torch.random.get_rng_state()
    loaded = load_released_predictor(path, SMALL)
    assert torch.equal(torch.random.get_rng_state(), random)
    with torch.no_grad():
        expected = network(**inputs())
        assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
        # Not bit by bit: on some CPUs rounding depends on where the weights lie in memory.
        assert torch.allclose(loaded(**inputs()), expected, rtol=1e-5, atol=1e-6)
        old = {"text_encoder.embeddings.position_ids": torch.arange(20)[None]}
        torch.save({f"module.{name}": value for name, value in (state | old).items()}, path)
        again = load_released_predictor(path, SMALL).state_dict()
        assert all(torch.equal(value, state[name]) for name, value in again.items())


def test_what_does_not_fit_is_named(tmp_path):
    state = small().state_dict()
    path = tmp_path / "checkpoint.pt"
    state["mm_encoder.extra"] = state.pop("text_projector.bias")
    state["linear"] = torch.zeros(1)
    state["out_head_attn.4.bias"] = torch.zeros(2)
    torch.save(state, path)
    with pytest.raises(UserError) as error:
        load_released_predictor(path, SMALL)
    assert "1 missing (text_projector.bias)" in str(error.value)
    assert "2 unexpected (mm_encoder.extra, linear)" in str(error.value)
    assert "1 of another shape (out_head_attn.4.bias)" in str(error.value)
    for other in ([1, 2], {"model_state_dict": [1, 2]}):
        torch.save(other, path)
        with pytest.raises(UserError, match=r"missing \(text_encoder.*\.\.\.\)"):
            load_released_predictor(path, SMALL)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        load_released_predictor(path, SMALL)
