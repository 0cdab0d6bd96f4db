"""Totals and tables of reports, with numbers added by hand."""

from __future__ import annotations

import csv
import io
import re

import pytest

from fastsam3d.acceleration.run_report import Total, csv_text, html_table, text_table
from fastsam3d.diffusion.report import NetworkFlops, Report, StageReport
from fastsam3d.mllm.report import Report as PruningReport


@pytest.fixture
def report() -> Report:
    stages = {
        "sparse_structure": StageReport(1, 10, 8, 3, 2, tokens_computed=30, tokens_possible=40),
        "structured_latent": StageReport(1, 5, 4, 1, 1),
    }
    flops = {"sparse_structure": NetworkFlops(800.0, 700.0, 300.0), "mesh_decoder": NetworkFlops(200.0, 200.0, 200.0)}
    seconds = {"preprocessing": 0.25, "sparse_structure": 1.5}
    return Report("paper", ("step_caching",), stages, seconds, objects=1, network_flops=flops)


def test_total_adds_up_stages_and_networks(report: Report) -> None:
    total = report.total
    assert (total.seconds, total.evaluations, total.forecast) == (1.75, 27, 7)
    assert (total.flop_untouched, total.flop_computed, total.fewer_operations) == (1000.0, 500.0, 2.0)
    assert Total(1.0, 0.0, 0.0).fewer_operations == 1.0  # nothing is known of operations
    assert re.search(r"^total +1\.750 +27 +7$", str(report), flags=re.MULTILINE)


def test_csv_has_one_line_a_stage_and_numbers_in_full(report: Report, tmp_path) -> None:
    report.seconds["sparse_structure"] = 1 / 3
    text = report.to_csv(tmp_path / "report.csv")
    assert (tmp_path / "report.csv").read_text(encoding="utf-8") == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["stage"] for row in rows] == ["preprocessing", "sparse_structure", "structured_latent", "mesh_decoder"]
    assert float(rows[1]["seconds"]) == 1 / 3
    assert (rows[1]["evaluations"], rows[1]["forecast"], rows[1]["tokens_kept"]) == ("18", "5", "0.75")
    assert rows[2]["seconds"] == rows[2]["tokens_kept"] == rows[0]["evaluations"] == ""  # not known, or no such count
    assert (rows[3]["flop_untouched"], rows[3]["flop_computed"]) == ("200.0", "200.0")


def test_notebooks_show_a_table_and_the_words(report: Report) -> None:
    report.notes = ("a < b",)
    shown = report._repr_html_()
    assert shown.count("<tr>") == 5 and "<td>0.75</td>" in shown and "a &lt; b" in shown


def test_pruning_report_has_a_table_of_layers() -> None:
    report = PruningReport("balanced", tokens_by_layer=[9, 5], visual_by_layer=[6, 2], flops_full=8.0, flops=2.0)
    report.prefill_seconds, report.decode_seconds = 0.5, 0.25
    assert report.to_csv() == "layer,tokens,visual_tokens\n0,9,6\n1,5,2\n"
    assert report.total == Total(0.75, 8.0, 2.0) and report.total.fewer_operations == 4.0


def test_tables_without_rows_are_empty() -> None:
    assert csv_text([]) == html_table([]) == PruningReport("off").to_csv() == ""


def test_text_table_aligns_its_columns() -> None:
    assert text_table([("stage", "s"), ("a", "1.5")]) == ["stage    s", "----------", "a      1.5"]
