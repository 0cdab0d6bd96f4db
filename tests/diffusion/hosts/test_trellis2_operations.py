"""What `benchmarks/trellis2_operations.py` counts, against sums by hand of the published sizes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "trellis2_operations.py"
TERA = 1e12


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("trellis2_operations", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def total(row, key):
    return sum(part[key] for part in row["stages"].values())


def test_exact_savings_of_a_cascade(script):
    (row,) = script.count("1024_cascade", 9600, ["exact"])
    # TFLOP a pass: 13.7 structure, 7.4 shape 512, 47.7 the two for 1024; of these all cross-attention 2.1, 1.3, 10.8.
    plain = total(row, "plain")
    assert plain == pytest.approx((22 * 13.7 + 21 * 7.4 + (21 + 12) * 47.7) * TERA, rel=0.005)
    zero = (10 * 2.1 + 9 * 1.3 + 9 * 10.8) * TERA
    assert row["shares"]["zero_condition"] == pytest.approx(zero, rel=0.03)
    # Keys and values 0.19, 0.19, 0.77 and 0.77 of conditional passes, once instead of twelve times.
    assert row["shares"]["condition_cache"] == pytest.approx(11 * (2 * 0.19 + 2 * 0.77) * TERA, rel=0.03)
    assert 1 - total(row, "exact") / plain == pytest.approx(0.079, abs=0.001)
    # The next object with the same seed: a structure pass without cross-attention and without its first self-attention.
    pass_left = 13.7 - 2.1 - (8 * 4096 * 1536**2 + 4 * 4096**2 * 1536) / TERA
    assert row["next_saved"] == pytest.approx(pass_left * TERA, rel=0.01)
    assert 1 - (total(row, "exact") - row["next_saved"]) / plain > 0.084


def test_pixal3d_projects_a_condition_of_every_token(script):
    (row,) = script.count("1024_cascade", 9600, ["exact"], pixal3d=True)
    plain = total(row, "plain")
    own = 30 * 2 * 1024 * 1536 * (22 * 4096 + 21 * 2400 + (21 + 12) * 9600)
    assert plain == pytest.approx((22 * 13.7 + 21 * 7.4 + (21 + 12) * 47.7) * TERA + own, rel=0.005)
    assert 1 - total(row, "exact") / plain == pytest.approx(0.097, abs=0.001)


def test_approximate_presets(script):
    rows = {row["preset"]: row for row in script.count("1024_cascade", 9600, ["off", "balanced"], carving=0.5)}
    less = {name: total(row, "plain") / total(row, "computed") for name, row in rows.items()}
    assert less["off"] == 1 and rows["off"]["next_saved"] == 0
    assert less["balanced"] > 2.9 and less["balanced + carving 0.5"] > 3.3
