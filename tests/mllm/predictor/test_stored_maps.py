"""Maps on disk: they come back whole, and are refused where they are of another kind, model or number."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_language_models import SPANS, prompts, tiny_model
from torch import nn

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.mllm import RowSet, extract_maps
from fastsam3d.mllm.predictor.question_sets import first_number, question_set, set_of
from fastsam3d.mllm.predictor.stored_maps import StoredMaps, load_maps, model_identity, save_maps


def masses() -> StoredMaps:
    return StoredMaps("mass", "last", "m", {7: torch.tensor([0.01, 0.03]), 0: torch.tensor([0.2, 0.0, 0.2])})


def test_maps_come_back_by_their_numbers(tmp_path):
    path = save_maps(masses(), tmp_path / "maps.safetensors")
    loaded = load_maps(path, model="m", kind="mass", rows="last")
    assert loaded.maps.keys() == {0, 7}
    assert torch.equal(loaded.maps[0], torch.tensor([0.2, 0.0, 0.2]))
    assert torch.equal(loaded.maps[7], torch.tensor([0.01, 0.03]))
    assert (loaded.kind, loaded.rows, loaded.model) == ("mass", "last", "m")


def test_shares_are_right_for_both_kinds_and_a_softmax_over_shares_is_refused():
    maps = masses()
    assert maps.shares(7).tolist() == pytest.approx([0.25, 0.75])
    logits = StoredMaps("logits", "last", "m", {7: torch.tensor([0.0, 3.0]).exp().log()})
    assert logits.shares(7).tolist() == pytest.approx([1 / (1 + 2.718281828**3), 1 - 1 / (1 + 2.718281828**3)])
    assert logits.logits(7).tolist() == pytest.approx([0, 3])
    with pytest.raises(UserError, match="softmax would make all of them nearly equal"):
        maps.logits(7)


def test_missing_maps_are_named():
    masses().require([0, 7])
    with pytest.raises(UserError, match=r"6 prompts have no map \(1, 2, 3, 4, 5, ...\)"):
        masses().require(range(8))
    with pytest.raises(UserError, match=r"1 prompts have no map \(3\)"):
        masses().objects([7, 3])


def test_parts_are_merged_by_number_and_may_share_prompts():
    maps = masses()
    maps.merge(StoredMaps("mass", "last", "m", {7: torch.tensor([0.01, 0.03]), 8: torch.tensor([1.0])}))
    assert maps.maps.keys() == {0, 7, 8}
    with pytest.raises(UserError, match="prompt 7 has two different maps"):
        maps.merge(StoredMaps("mass", "last", "m", {7: torch.tensor([0.03, 0.01])}))
    for other in (StoredMaps("logits", "last", "m"), StoredMaps("mass", "text", "m"), StoredMaps("mass", "last", "n")):
        with pytest.raises(UserError, match="do not belong together"):
            maps.merge(other)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("mass", [0.5, -0.1], "negative shares"),
        ("mass", [float("nan")], "not finite"),
        ("logits", [], "empty"),
        ("order", [1.0], "say logits or mass"),
    ],
)
def test_numbers_that_are_no_map_are_refused(kind, values, words):
    with pytest.raises(UserError, match=words):
        StoredMaps(kind, "last", "m", {0: torch.tensor(values)})


def test_other_files_are_refused(tmp_path):
    path = save_maps(masses(), tmp_path / "maps.safetensors")
    for wanted in ({"model": "n"}, {"kind": "logits"}, {"rows": "text"}):
        with pytest.raises(UserError, match="is needed: make them for it"):
            load_maps(path, **wanted)
    with pytest.raises(UserError, match="there are no maps to write"):
        save_maps(StoredMaps("mass", "last", "m"), path)
    good = {"indices": torch.tensor([0, 1]), "lengths": torch.tensor([1, 1]), "values": torch.zeros(2)}
    entry = {"version": 1, "kind": "mass", "rows": "last", "model": "m"}
    for change, words in (
        ({"indices": torch.tensor([0, 0])}, "not told apart"),
        ({"lengths": torch.tensor([1, 2])}, "do not add up"),
        ({"lengths": torch.tensor([3, -1])}, "do not add up"),
        ({"values": torch.tensor([0.0, float("inf")])}, "not finite"),
    ):
        save_file(good | change, path, {"fastsam3d.attention_maps": json.dumps(entry)})
        with pytest.raises(UserError, match=words):
            load_maps(path)
    save_file(good, path, {"fastsam3d.attention_maps": json.dumps(entry | {"version": 2})})
    with pytest.raises(UserError, match="version 2"):
        load_maps(path)
    save_file(good, path)
    with pytest.raises(UserError, match="no file of attention maps"):
        load_maps(path)


def test_maps_tell_which_objects_only_fill_up(tmp_path):
    maps = masses()
    maps.add(9, torch.tensor([0.5, 0.25, 0.25]), torch.tensor([False, True, True]))
    loaded = load_maps(save_maps(maps, tmp_path / "maps.safetensors"))
    assert loaded.there(9).tolist() == [False, True, True] and loaded.there(7).tolist() == [True, True]
    assert loaded.shares(9).tolist() == [0, 0.5, 0.5]
    for present in (torch.ones(2).bool(), torch.zeros(3).bool()):
        with pytest.raises(UserError, match="one of each for every object, and at least one object"):
            maps.add(10, torch.ones(3), present)


def test_sets_tell_whose_questions_the_maps_are_of(tmp_path):
    one, other = question_set("a", [("s", "x"), ("s", "y")]), question_set("b", [("s", "x"), ("t", "y"), ("t", "x")])
    maps = StoredMaps("mass", "last", "m", {0: torch.ones(1), 4: torch.ones(2)}, (one, other))
    loaded = load_maps(save_maps(maps, tmp_path / "maps.safetensors"))
    assert loaded.sets == (one, other)
    assert [first_number(loaded.sets, wanted) for wanted in (one, other)] == [0, 2]
    assert [set_of(loaded.sets, number) for number in range(6)] == ["a", "a", "b", "b", "b", ""]
    with pytest.raises(UserError, match="the maps of a were made for 2 other questions, not for the 2"):
        first_number(loaded.sets, question_set("a", [("s", "y"), ("s", "x")]))
    with pytest.raises(UserError, match="no maps of c; the maps are a, b: make those of c too"):
        first_number(loaded.sets, question_set("c", []))
    with pytest.raises(UserError, match="no maps of c; the maps are of sets without a name"):
        first_number((), question_set("c", []))
    with pytest.raises(UserError, match=r"maps with the sets .* do not belong together"):
        loaded.merge(StoredMaps("mass", "last", "m", {}, (one,)))
    good = {name: torch.tensor([1]) for name in ("indices", "lengths", "values")}
    entry = {"version": 1, "kind": "mass", "rows": "last", "model": "m"}
    for sets in (3, [1], [{"name": "a"}], [{"name": "a", "questions": 1, "digest": ""}] * 2):
        save_file(good, tmp_path / "maps.safetensors", {"fastsam3d.attention_maps": json.dumps(entry | {"sets": sets})})
        with pytest.raises(UserError, match="no file of attention maps that can be read"):
            load_maps(tmp_path / "maps.safetensors")


def test_a_model_is_known_by_its_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, other = nn.Linear(300, 20), nn.Linear(300, 20)
    before = model_identity(model)
    assert model_identity(other) != before
    model.attention_predictor = other
    assert model_identity(model) == before
    with torch.no_grad():
        model.bias[19] += 1
    assert model_identity(model) != before
    assert model_identity(model, without=("bias",)) != model_identity(model)
    with torch.no_grad():
        rounded = model_identity(model, dtype=torch.bfloat16)
        model.weight.copy_(model.weight.to(torch.bfloat16))
        model.bias.copy_(model.bias.to(torch.bfloat16))
    assert model_identity(model, dtype=torch.bfloat16) == rounded


def test_stored_maps_prune_as_the_run_that_they_come_from(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    model, inputs = tiny_model(), prompts()
    extracted = extract_maps(model, SPANS, [RowSet("last")], **inputs)[0]
    maps = StoredMaps("mass", "last", model_identity(model), dict(enumerate(extracted)))
    maps = load_maps(save_maps(maps, tmp_path / "maps.safetensors"), model_identity(model))
    pruning, results = {"enabled": True, "layer": 0, "budget": "mass", "alpha": 0.5}, []
    for settings, objects in (
        ({"oracle": True}, None),
        ({"external": {"enabled": True, "scale": maps.kind}}, maps.objects(range(3))),
    ):
        with fastsam3d.accelerate(model, {"pruning": pruning} | settings), torch.no_grad():
            results.append(model(**inputs, visual=SPANS, objects=objects).logits)
    assert torch.equal(*results)
