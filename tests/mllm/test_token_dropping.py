"""Columns that stay, and their masks, worked out by hand."""

from __future__ import annotations

import torch

from fastsam3d.mllm.dropping.token_dropping import allowed_pairs, as_additive, as_bool, kept_columns, take


def test_kept_tokens_are_put_to_the_right_in_their_order():
    columns, valid = kept_columns(torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1]]).bool())
    assert columns[0].tolist() == [0, 2, 3]
    assert columns[1, 1:].tolist() == [1, 3]
    assert valid.tolist() == [[True, True, True], [False, True, True]]


def test_tables_of_one_row_are_taken_for_every_sample():
    table = torch.tensor([[10, 11, 12, 13]])
    assert take(table, torch.tensor([[0, 2], [1, 3]])).tolist() == [[10, 12], [11, 13]]


def test_pairs_are_causal_and_empty_places_see_themselves_alone():
    valid = torch.tensor([[False, True, True]])
    assert allowed_pairs(None, None, valid)[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_a_mask_of_the_model_is_taken_at_rows_and_columns():
    mask = torch.arange(16).view(1, 1, 4, 4) % 3 == 0  # 0 3 6 9 12 15
    pairs = allowed_pairs(mask, torch.tensor([[0, 2, 3]]), torch.ones(1, 3).bool())[0, 0]
    assert pairs.int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_masks_are_added_or_asked_to_the_same_effect():
    seen = torch.tensor([True, False])
    assert as_additive(seen, torch.float16).tolist() == [0.0, -65504.0]
    assert torch.equal(as_bool(as_additive(seen, torch.float16)), seen)
