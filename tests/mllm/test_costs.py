"""Operations and memory of Vicuna-7B against the figures that were worked out for it."""

from __future__ import annotations

import pytest

from fastsam3d.mllm.counting.costs import Sizes
from fastsam3d.mllm.report import Report

VICUNA = Sizes(32, 4096, 32, 32, 128, 11008, 32000)
MIB = 2**20


def test_one_layer_by_hand():
    # Weights 2·(2·4+2·2) + 3·2·5 = 54; 2 operations each for 3 tokens, and 6 pairs of 4 wide queries, twice.
    assert Sizes(1, 2, 2, 1, 2, 5, 7).layer_flops(3) == 2 * 54 * 3 + 4 * 4 * 6


@pytest.mark.parametrize(
    ("layer", "kept", "ratio", "mib"), [(16, 90, 1.37, 142), (6, 60, 2.01, 98), (2, 15, 3.19, 61), (0, 30, 3.27, 60)]
)
def test_three_hundred_visual_tokens(layer, kept, ratio, mib):
    tokens = [390 if index < layer else 90 + kept for index in range(32)]
    full = [390] * 32
    assert VICUNA.prefill_flops(full) / 1e12 == pytest.approx(5.09, abs=0.005)
    assert VICUNA.prefill_flops(full) / VICUNA.prefill_flops(tokens) == pytest.approx(ratio, abs=0.01)
    assert VICUNA.cache_bytes(full) / MIB == 195
    assert VICUNA.cache_bytes(tokens) / MIB == pytest.approx(mib, abs=0.6)


@pytest.mark.parametrize(("layer", "kept", "share"), [(2, 15, 0.8906), (6, 60, 0.65), (16, 90, 0.35)])
def test_the_pruned_share_is_averaged_over_the_layers(layer, kept, share):
    by_layer = [300 if index < layer else kept for index in range(32)]
    report = Report("x", visual_tokens=300, visual_by_layer=by_layer)
    assert report.pruned_share == pytest.approx(share, abs=1e-4)
    report.add(report)
    assert (report.pruned_share, report.visual_tokens) == (pytest.approx(share, abs=1e-4), 600)
