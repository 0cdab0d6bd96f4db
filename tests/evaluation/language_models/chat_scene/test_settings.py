"""Settings from a preset, changed values as text, and stored maps."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.chat_scene.settings import settings_of
from fastsam3d.mllm.predictor.stored_maps import StoredMaps

LOGITS = StoredMaps("logits", "last", "m", {0: torch.zeros(2)})


def test_settings_of_the_pruning_need_no_group_and_choose_their_budget():
    # The three settings of Fast3D: layer 2 and 5 objects, 6 and 20, 16 and 30.
    for layer, keep in ((2, 5), (6, 20), (16, 30)):
        pruning = settings_of("fastv_90", {"layer": str(layer), "keep": str(keep)})["pruning"]
        assert (pruning.layer, pruning.budget, pruning.keep) == (layer, "fixed", keep)
    pruning = settings_of("fastv_90", {"pruning.alpha": "0.3", "mask": "true"})["pruning"]
    assert (pruning.budget, pruning.alpha, pruning.mask) == ("mass", 0.3, True)
    assert settings_of("gap_sap_90", {"share": "0.5"})["pruning"].budget == "share"
    assert settings_of("fastv_90", {"keep": "5", "budget": "share"})["pruning"].budget == "share"
    assert settings_of("gap_90", {"gap.predictor": "3.5"})["gap"].predictor == "3.5"
    assert settings_of("off", {}).enabled == ()


def test_maps_take_the_place_of_the_scorer():
    config = settings_of("gap_sap_90", {}, LOGITS)
    assert set(config.enabled) == {"pruning", "external"} and config["external"].scale == "logits"
    mass = StoredMaps("mass", "last", "m", {0: torch.ones(2)})
    assert settings_of("fastv_90", {}, mass)["external"].scale == "mass"
    assert settings_of("released", {"keep": "15"}, LOGITS)["released"].scores == "external"


@pytest.mark.parametrize(
    ("preset", "changes", "maps", "words"),
    [
        ("fastv_90", {"laier": "2"}, None, "unknown key 'laier'. Did you mean layer"),
        ("fastv_90", {"vicunaa": "2"}, None, "unknown key 'vicunaa'. Did you mean vicuna"),
        ("fastv_90", {"pruning.laier": "2"}, None, "unknown key pruning.laier: did you mean pruning.layer"),
        ("fastv_90", {"prunning.layer": "2"}, None, "unknown technique 'prunning'"),
        ("fastv_90", {"layer": "two"}, None, "pruning.layer is 'two': a finite number is needed"),
        ("fastv_90", {"alpha": "1.5"}, None, "pruning.alpha is 1.5, out of range"),
        ("fastv_90", {"keep": "2", "alpha": "0.2"}, None, "keep and alpha belong to different budgets"),
        ("fastv90", {}, None, "unknown preset 'fastv90'"),
        ("off", {"layer": "2"}, None, "layer= has no effect with preset=off, which prunes nothing"),
        ("off", {}, LOGITS, "maps= has no effect with preset=off, which prunes nothing"),
    ],
)
def test_what_cannot_be_or_changes_nothing_is_refused(preset, changes, maps, words):
    with pytest.raises(UserError, match=words):
        settings_of(preset, changes, maps)
