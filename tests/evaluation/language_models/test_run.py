"""The whole benchmark with an untrained model, and its rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from fastsam3d.basics.files import finite
from fastsam3d.cli.main import main
from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models import run as run_module
from fastsam3d.evaluation.language_models.counted import count_rows
from fastsam3d.evaluation.language_models.options import PruningBenchmarkOptions
from fastsam3d.evaluation.language_models.rows import _method, predictors_of, rows_of
from fastsam3d.evaluation.language_models.run import run
from fastsam3d.evaluation.language_models.timing import Setting, _record
from fastsam3d.mllm.mini.budget_search import find_budget, predicted_logits
from fastsam3d.mllm.mini.loading import LANGUAGE_MODEL, PREDICTOR, load_small_model, save_small_model
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
        objects=(12,),
        batches=(1, 2),
        rounds=1,
    )
    result = run(options)
    assert json.loads((tmp_path / "bench.json").read_text()) == finite(result)
    by_name = {row["method"]: row for row in result["rows"]}
    assert list(by_name) == ["off", "gap_fixed_90", "gap_sap_90", "fastv_35"]
    assert by_name["off"]["pruned_share"] == 0.0
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
    off, fixed = (one for one in count_rows(rows_of(("gap_fixed_90",)), {}) if one["objects"] == 100)
    assert off["tflop"] == pytest.approx((32 * layer + 2 * 4096 * 32100) / 1e12)
    assert off["cache_mib"] == 195.0  # half a MiB a token
    assert fixed["cache_mib"] == 60.0  # 90 words and 10 objects of three tokens


def test_masked_tokens_save_no_operations():
    masked = _method("masked", "fastv_90", {"pruning": {"mask": True}})
    for one in count_rows([*rows_of(("released",)), masked], {}):
        assert one["ratio"] == 1.0 and one["cache_mib"] == (195.0 if one["objects"] == 100 else 495.0)


def test_an_even_number_of_rounds_has_a_median_in_the_middle():
    # Prefill of 8 and 4 ms beside 16 and 16: 2 and 4 times as fast, 3 in the middle.
    taken, off = ([{"prefill_ms": value} for value in values] for values in ((8.0, 4.0), (16.0, 16.0)))
    record = _record("a", Setting(1, 1, 1), taken, off)
    assert (record["prefill_ms"], record["prefill_speedup"]) == (6.0, 3.0)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("objects=abc", "give one or more whole numbers of at least 1"),
        ("objects=[]", "give one or more whole numbers of at least 1"),
        ("batches=1,0", "give one or more whole numbers of at least 1"),
        ("device=toaster", "'toaster' is not a device"),
        ("output=/dev/null/x", "cannot write to output"),
    ],
)
def test_what_is_wrong_is_said_before_the_model_is_loaded(word, told, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run_module, "load_small_model", lambda folder: pytest.fail("the model was loaded"))
    words = [word] if word.startswith("output") else [f"output={tmp_path}", word]
    assert main(["mllm", "bench", *words]) == 2
    assert told in capsys.readouterr().err


def test_rows_are_presets_controls_and_predictors(folder: Path, tmp_path: Path):
    names = [row.name for row in rows_of(("all",))]
    assert names[0] == "off" and {"balanced", "fastv_90", "random_90", "oracle_90", "gap_fixed_95"} <= set(names)
    assert len(names) == len(set(names)) and "released" not in names
    with pytest.raises(UserError, match="gap_sap"):
        rows_of(("gap_sap_91",))
    with pytest.raises(UserError, match=r"no predictor_\*\.safetensors"):
        predictors_of(str(tmp_path))
    save_predictor(seeded_predictor(PredictorConfig(embedding=32), 0), tmp_path / "predictor_text.safetensors")
    assert predictors_of(str(tmp_path)) == {"text": tmp_path / "predictor_text.safetensors"}


def test_the_mass_that_leaves_out_a_part_is_searched_on_rooms_of_its_own(folder: Path):
    model = load_small_model(folder)
    logits = predicted_logits(model, rooms=3, questions=4)
    assert [len(values) for values in logits] == [30] * 4 + [65] * 4 + [100] * 4
    found = find_budget(model, 80.0, rooms=3, questions=4)
    assert found.percent == pytest.approx(80.0, abs=2.0)
    # By hand: the smallest sets of the largest shares that reach alpha.
    counts = [
        int((values.softmax(0).sort(descending=True).values.cumsum(0) < found.value).sum()) + 1 for values in logits
    ]
    left_out = [100 - 100 * count / len(values) for count, values in zip(counts, logits, strict=True)]
    assert sum(left_out) / len(left_out) == pytest.approx(found.percent, abs=0.5)
