"""Predictors on disk: what was written comes back, and what cannot be read is refused in a line."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from fastsam3d.errors import UserError
from fastsam3d.mllm.predictor import files
from fastsam3d.mllm.predictor.batch import PredictorBatch
from fastsam3d.mllm.predictor.network import PredictorConfig, seeded_predictor

CONFIG = PredictorConfig(embedding=8, group_size=2, width=16, heads=2, feed_forward=16, matching=4, boxes="optional")


def test_a_predictor_comes_back_as_it_was(tmp_path):
    network = seeded_predictor(CONFIG, 3).eval()
    batch = PredictorBatch(
        torch.rand(1, 4, 2, 8), torch.rand(1, 3, 8), torch.ones(1, 4).bool(), torch.ones(1, 3).bool()
    )
    path = files.save_predictor(network, tmp_path / "a.safetensors", {"model": "small"})
    state = torch.random.get_rng_state()
    loaded = files.load_predictor(str(path))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.config == CONFIG and not loaded.training
    assert torch.equal(loaded(batch), network(batch))
    assert files.notes_of(path) == {"model": "small"} and files.notes_of(tmp_path / "none") == {}
    half = files.save_predictor(network, tmp_path / "b.safetensors", dtype=torch.bfloat16)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    assert torch.allclose(files.load_predictor(half)(batch), network(batch), atol=0.05)


def written(path, change=lambda state, entry: None):
    """A file whose weights and entry are changed before."""
    state = seeded_predictor(CONFIG, 3).state_dict()
    entry = {"version": files.VERSION, "config": asdict(CONFIG), "notes": {}}
    change(state, entry)
    save_file(state, path, {"fastsam3d.attention_predictor": json.dumps(entry)})
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state, entry: state.pop("head.1.bias"), "head.1.bias is missing"),
        (lambda state, entry: state.update(extra=torch.zeros(1)), "extra is unexpected"),
        (lambda state, entry: state.update({"head.1.bias": torch.zeros(3)}), r"head.1.bias has the shape \(3,\)"),
        (lambda state, entry: entry.update(version=7), "version 7"),
        (lambda state, entry: entry["config"].update(decoder_layers=10**9), "decoder_layers is 1000000000"),
        (lambda state, entry: entry["config"].update(depth=2), "unknown size depth"),
        (lambda state, entry: entry["config"].update(heads=0), "heads is 0"),
        # Every pair of tokens of a group has a number: 65,536 tokens would have two thousand million pairs.
        (lambda state, entry: entry["config"].update(group_size=1 << 16), "group_size is 65536"),
        (lambda state, entry: entry.update(config=[1, 2]), "its sizes are a list"),
        (lambda state, entry: entry.pop("config"), "config"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, words):
    path = written(tmp_path / "a.safetensors", change)
    with pytest.raises(UserError, match=words):
        files.load_predictor(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        files.load_predictor(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UserError, match="no attention predictor that can be read"):
        files.load_predictor(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="no attention predictor that can be read"):
        files.load_predictor(tmp_path / "plain.safetensors")
