"""The whole benchmark with an untrained model, and its rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from fastsam3d.basics.files import finite
from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.counted import count_rows
from fastsam3d.evaluation.language_models.options import PruningBenchmarkOptions
from fastsam3d.evaluation.language_models.rows import rows_of
from fastsam3d.evaluation.language_models.run import run
from fastsam3d.mllm.mini.loading import LANGUAGE_MODEL, PREDICTOR, save_small_model
from fastsam3d.mllm.mini.model import ModelConfig, SceneLanguageModel
from fastsam3d.mllm.predictor.files import save_predictor
from fastsam3d.mllm.predictor.network import PredictorConfig, seeded_predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    save_small_model(
        SceneLanguageModel(ModelConfig(width=32, layers=4, heads=2, feed_forward=48)), place / LANGUAGE_MODEL
    )
    save_predictor(seeded_predictor(PredictorConfig(embedding=32), 0), place / PREDICTOR)
    return place


def test_all_rows_answer_and_are_timed(folder: Path, tmp_path: Path):
    options = PruningBenchmarkOptions(
        output=str(tmp_path),
        methods=("gap_fixed_90", "gap_sap_90", "fastv_35"),
        rooms=2,
        questions=18,
        model=str(folder),
        objects=("12",),
        batches=("1", "2"),
        rounds=1,
    )
    result = run(options)
    assert json.loads((tmp_path / "bench.json").read_text()) == finite(result)
    by_name = {row["method"]: row for row in result["rows"]}
    assert list(by_name) == ["off", "gap_fixed_90", "gap_sap_90", "fastv_35"]
    assert by_name["off"]["score_ratio"] == pytest.approx(100.0, nan_ok=True) and by_name["off"]["pruned_share"] == 0.0
    # Cut at half of the layers, three tenths stay: half of seven tenths are left out, up to rounding of whole objects.
    assert by_name["fastv_35"]["pruned_share"] == pytest.approx(0.35, abs=0.01)
    assert by_name["gap_fixed_90"]["pruned_share"] == pytest.approx(0.9, abs=0.01)
    assert {(one["objects"], one["batch"], one["beams"]) for one in result["timing"]} == {
        (12, 1, 1),
        (12, 2, 1),
        (12, 1, 5),
    }
    full = next(one for one in result["timing"] if one["method"] == "off" and one["batch"] == 1 and one["beams"] == 1)
    # Keys and values of 4 layers, 2 heads of 16 numbers, 4 bytes each: 1,024 bytes a token.
    assert full["cache_mib"] * 2**20 % 1024 == 0 and full["cache_mib"] * 1024 > 2 + 36
    text = (tmp_path / "bench.md").read_text()
    assert text.count("\n| gap_fixed_90 |") == 2 and "| 12 | 2 | 1 | off |" in text


def test_operations_at_7b_are_those_of_the_formula():
    # By hand, at 100 objects: a layer has 4 x 4096^2 + 3 x 4096 x 11008 weights; 390 tokens, 76,245 pairs.
    layer = 2 * (4 * 4096**2 + 3 * 4096 * 11008) * 390 + 4 * 4096 * 390 * 391 / 2
    off, fixed = (one for one in count_rows(rows_of(("gap_fixed_90",), None), {}) if one["objects"] == 100)
    assert off["tflop"] == pytest.approx((32 * layer + 2 * 4096 * 32100) / 1e12)
    assert off["cache_mib"] == 195.0  # half a MiB a token
    assert fixed["cache_mib"] == 60.0  # 90 words and 10 objects of three tokens


def test_rows_are_presets_controls_and_predictors(tmp_path: Path):
    names = [row.name for row in rows_of(("all",), None)]
    assert names[0] == "off" and {"balanced", "fastv_90", "random_90", "oracle_90", "gap_fixed_95"} <= set(names)
    assert len(names) == len(set(names)) and "released" not in names
    with pytest.raises(UserError, match=r"no predictor_\*\.safetensors"):
        rows_of(("off",), str(tmp_path))
    with pytest.raises(UserError, match="gap_sap"):
        rows_of(("gap_sap_91",), None)
    save_predictor(seeded_predictor(PredictorConfig(), 0), tmp_path / "predictor_text.safetensors")
    assert [row.name for row in rows_of(("off",), str(tmp_path))] == ["off", "gap_fixed_90 (text)"]
