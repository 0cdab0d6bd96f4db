from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path

import pytest
from bench_schema import violations
from evaluation_stand_in import POINTS, StandIn, make_view

from fastsam3d.basics.files import finite
from fastsam3d.cli.commands.evaluation.bench import main
from fastsam3d.errors import UserError
from fastsam3d.evaluation.benchmark.report import report, result_text, update_document, write_results
from fastsam3d.evaluation.benchmark.run import BenchmarkOptions, run_benchmark
from fastsam3d.evaluation.benchmark.tables import fidelity_table, split_table
from fastsam3d.evaluation.measuring.methods import OFF, Method

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs" / "bench.schema.json").read_text())


@pytest.fixture(scope="module")
def result():
    """A run of "off" alone, and rows made from it for methods whose figures are chosen."""
    options = BenchmarkOptions(methods=("off",), objects=2, scenes=0, points=POINTS, noise_row=False)
    made = finite(run_benchmark(StandIn(), options, make_view, methods=[Method(OFF, OFF)]))
    off = made["rows"][0] | {"seconds_per_object": 4.0}
    for name, seconds, fidelity in (("exact", 2.0, 1.0), ("balanced", 1.0, 0.97), ("other_seed", 4.0, 0.6)):
        row = copy.deepcopy(off) | {"method": name, "seconds_per_object": seconds, "speedup": 4.0 / seconds}
        made["rows"].append(row | {"fidelity_viou": fidelity, "timed": name != "other_seed"})
    made["rows"][0] = off
    return made


def test_result_follows_the_documented_schema_and_every_row_key_is_documented(result):
    assert violations(result, SCHEMA) == []
    documented = SCHEMA["properties"]["rows"]["items"]["properties"]
    assert set(result["rows"][0]) == set(documented)
    assert set(result["meta"]) <= set(SCHEMA["properties"]["meta"]["properties"]) | {
        "model", "checkpoint_dir", "random_weights", "noise_row", "limit", "warmup",
    }  # fmt: skip
    broken = copy.deepcopy(result)
    del broken["rows"][0]["cd"]
    broken["rows"][1]["viou"] = "high"
    assert violations(broken, SCHEMA) == [
        "$.rows[0].cd is missing",
        "$.rows[1].viou is 'high', not number or null",
    ]


def test_json_holds_each_measurement_on_a_line(result):
    text = result_text(result)
    read = json.loads(text)
    assert list(read) == list(result)
    assert read["rows"] == result["rows"] and read["meta"] == result["meta"]
    lines = [line for line in text.splitlines() if line.startswith("{") and line != "{"]
    assert [json.loads(line.rstrip(",")) for line in lines] == read["objects"]
    for own, given in zip(read["objects"], result["objects"], strict=True):
        assert own["method"] == given["method"] and own["object_seed"] == given["object_seed"]
        assert own["seconds"] == pytest.approx(given["seconds"], rel=1e-5)
        assert len(str(own["seconds"])) < len(str(given["seconds"]))


def test_csv_has_one_line_an_object_and_method(result, tmp_path):
    write_results(result, tmp_path)
    with (tmp_path / "bench.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["object_seed"] for line in lines] == [str(record["object_seed"]) for record in result["objects"]]
    for line, record in zip(lines, result["objects"], strict=True):
        assert line["method"] == "off" and float(line["seconds"]) == pytest.approx(record["seconds"], rel=1e-5)
        for stage, seconds in record["stage_seconds"].items():
            assert float(line[f"seconds_{stage}"]) == pytest.approx(seconds, rel=1e-5)


def test_exact_and_approximate_shares_by_hand(result):
    # 4 s to 1 s: 3 s saved, of which exact alone saves 2; 2 times exact and 2 times on top.
    line = split_table([row for row in result["rows"] if row["timed"]]).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["balanced", "3.000", "2.00×", "2.00×", "67%"]
    assert split_table([row for row in result["rows"] if row["method"] != "exact"]) is None


def test_intervals_stand_beside_means_and_missing_ones_are_left_out(result):
    row = copy.deepcopy(result["rows"][2]) | {"fidelity_viou_ci": [0.95, 0.99], "speedup_ci": [3.8, 4.25]}
    text = fidelity_table([row])
    assert "0.9700 ±0.0200" in text
    assert "3.80–4.25" in text
    assert "nan" not in fidelity_table([row | {"fidelity_viou": None, "fidelity_viou_ci": [None, None]}])


def test_report_names_what_was_left_out(result):
    result = copy.deepcopy(result)
    result["meta"]["left_out"] = {"few_step_shortcut": "it was never distilled"}
    text = report(result)
    assert "Left out: few_step_shortcut, it was never distilled" in text
    assert text.startswith("**Warning: only 2 objects: intervals are wide")
    assert "### 2 objects, seed 7, guidance 2/1" in text
    assert "![pareto](pareto.png)" in text


def test_document_is_filled_between_its_markers_and_only_there(result, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    write_results(result, folder)
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- bench:main -->\nold\n<!-- /bench:main -->\nbetween\n<!-- bench:pareto -->\n"
                        "<!-- /bench:pareto -->\nafter\n")  # fmt: skip
    assert main([f"report={folder}", f"document={document}"]) == 0
    text = document.read_text()
    assert "old" not in text
    assert text.startswith("before\n<!-- bench:main of run -->\n\n**2 objects")
    assert "![pareto](run/pareto.png)" in text
    assert text.endswith("<!-- /bench:pareto -->\nafter\n")
    once = document.read_text()
    update_document(document, result, folder)
    assert document.read_text() == once


def test_a_page_holds_tables_of_several_runs_and_no_run_fills_those_of_another(result, tmp_path):
    document = tmp_path / "page.md"
    block = "<!-- bench:main of {} -->\n{}\n<!-- /bench:main -->\n"
    document.write_text(block.format("runs/first", "first") + "between\n" + block.format("runs/second", "second"))
    update_document(document, result, tmp_path / "runs" / "second")
    text = document.read_text()
    assert text.startswith(block.format("runs/first", "first") + "between\n<!-- bench:main of runs/second -->\n\n**2")
    assert "\nsecond\n" not in text
    with pytest.raises(UserError, match=r"belong to runs/first, runs/second: to fill one from runs/third, delete"):
        update_document(document, result, tmp_path / "runs" / "third")
    assert document.read_text() == text


def test_document_without_markers_or_with_half_of_one_is_refused(result, tmp_path):
    (tmp_path / "page.md").write_text("nothing here")
    with pytest.raises(UserError, match="no marker such as"):
        update_document(tmp_path / "page.md", result, tmp_path)
    (tmp_path / "page.md").write_text("<!-- bench:main -->")
    with pytest.raises(UserError, match="has <!-- bench:main --> without its end"):
        update_document(tmp_path / "page.md", result, tmp_path)
    with pytest.raises(UserError, match="give a Markdown file"):
        update_document(tmp_path / "none.md", result, tmp_path)
    with pytest.raises(UserError, match=r"has no bench\.json"):
        main([f"report={tmp_path / 'nothing'}"])
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(UserError, match="is not the result of a benchmark"):
        main([f"report={tmp_path}"])


def test_the_page_in_the_repository_has_whole_markers():
    import re

    text = (ROOT / "docs" / "benchmark.md").read_text()
    blocks = re.findall(r"<!-- bench:([\w-]+) of ([\w/]+) -->", text)
    names = [name for name, _ in blocks]
    assert {"run", "main", "fidelity", "pareto", "ablation", "sweep-stride"} <= set(names)
    assert names == re.findall(r"<!-- /bench:([\w-]+) -->", text)
    assert all((ROOT / "docs" / folder / "bench.json").is_file() for _, folder in blocks)
    # One run holds every method that the page ranks.
    result = json.loads((ROOT / "docs" / "bench" / "bench.json").read_text())
    assert {"off", "exact", "paper", "accurate", "balanced", "fast", "limit"} <= {r["method"] for r in result["rows"]}


def test_numbers_of_a_row_are_finite_or_null(result):
    def numbers(value):
        if isinstance(value, dict):
            return [n for item in value.values() for n in numbers(item)]
        if isinstance(value, list):
            return [n for item in value for n in numbers(item)]
        return [value] if isinstance(value, float) else []

    assert all(math.isfinite(n) for n in numbers(result["rows"]))
