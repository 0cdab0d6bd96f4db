"""Spans of visual tokens in padded batches, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.errors import UserError
from fastsam3d.mllm import Placeholder, VisualSpan
from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.spans import layout_of, live_tokens, spans_of_samples

LIVE = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]).bool()


def test_positions_count_from_the_first_token_that_is_no_padding():
    layout = layout_of([(VisualSpan(1, 2, 1),), (VisualSpan(1, 1, 2), VisualSpan(4, 1, 2))], LIVE)
    assert layout.group_of.tolist() == [[-1, -1, -1, 0, 1, -1, -1], [-1, 0, 0, -1, 1, 1, -1]]
    assert layout.present.tolist() == [[True, True], [True, True]]
    assert (layout.last_visual.tolist(), layout.groups.tolist()) == ([4, 5], [2, 2])


def test_groups_of_unequal_sizes_are_spans_of_their_own():
    layout = layout_of([(VisualSpan(0, 1, 2), VisualSpan(2, 1, 1)), (VisualSpan(0, 1, 1), VisualSpan(1, 1, 4))], LIVE)
    assert layout.group_of.tolist() == [[-1, -1, 0, 0, 1, -1, -1], [0, 1, 1, 1, 1, -1, -1]]
    assert layout.summed(torch.ones(2, 7)).tolist() == [[2, 1], [1, 4]]
    assert layout.groups.tolist() == [2, 2]


def test_padding_objects_and_missing_groups_are_not_present():
    layout = layout_of([(VisualSpan(0, 3, 1, [True, False, True]),), (VisualSpan(0, 1, 1),)], LIVE)
    assert layout.present.tolist() == [[True, False, True], [True, False, False]]


def test_a_prompt_without_visual_tokens_is_a_sample_too():
    layout = layout_of(spans_of_samples([VisualSpan(0, 1), []], 2), LIVE)
    assert layout.visual.sum(1).tolist() == [1, 0]
    assert layout.last_visual.tolist() == [2, -1]


def test_values_of_tokens_are_summed_and_averaged_over_groups():
    layout = layout_of([(VisualSpan(0, 2, 2),)], torch.ones(1, 5, dtype=torch.bool))
    assert layout.summed(torch.tensor([[1.0, 2.0, 3.0, 5.0, 9.0]])).tolist() == [[3.0, 8.0]]
    values = torch.tensor([[[1.0, 0], [2, 2], [3, 0], [5, 4], [9, 9]]])
    assert layout.averaged(values).tolist() == [[[1.5, 1.0], [4.0, 2.0]]]


def test_placeholders_become_one_span_a_run():
    ids = torch.tensor([[7, 7, 5, 7, 7, 7, 7], [7, 7, 5, 5, 7, 7, 5]])
    assert Placeholder(7, 2).spans(ids, LIVE) == [
        (VisualSpan(1, 2, 2),),
        (VisualSpan(0, 1, 2), VisualSpan(4, 1, 2)),
    ]
    with pytest.raises(UserError, match="4 times at position 1, which is no multiple of the group size 3"):
        Placeholder(7, 3).spans(ids, LIVE)


def test_positions_count_tokens_that_the_mask_hides_within_a_prompt():
    # The prompt begins in column 1; columns 2 and 3 are hidden. Objects of two tokens from position 1 on: the first is
    # hidden, so it is a padding object.
    live, ids = torch.tensor([[0, 1, 0, 0, 1, 1, 1, 1]]).bool(), torch.tensor([[7, 5, 7, 7, 7, 7, 5, 5]])
    spans = Placeholder(7, 2).spans(ids, live)
    assert spans == [(VisualSpan(1, 2, 2),)]
    layout = layout_of(spans, live)
    assert layout.group_of.tolist() == [[-1, -1, 0, 0, 1, 1, -1, -1]]
    assert layout.present.tolist() == [[False, True]]
    assert layout_of([(VisualSpan(5, 1, 2),)], live).group_of.tolist() == [[-1] * 6 + [0, 0]]
    with pytest.raises(UserError, match="ends at position 8, and its prompt has 7 tokens"):
        layout_of([(VisualSpan(6, 1, 2),)], live)


def test_one_span_serves_all_samples():
    span = VisualSpan(torch.tensor(1), np.int64(2))
    assert span == VisualSpan(1, 2) and type(span.start) is int
    assert spans_of_samples([None, span], 2) == [(), (span,)]
    assert spans_of_samples(span, 2) == [(span,), (span,)]
    assert spans_of_samples([span, [span, span]], 2) == [(span,), (span, span)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VisualSpan(-1, 2), "at least 0"),
        (lambda: VisualSpan(0, 2, 0), "at least 1"),
        (lambda: VisualSpan(0, 2, 1, [True]), "mask of 1"),
        (lambda: VisualSpan(1.5, 2), "start has to be a whole number"),
        (lambda: Placeholder(7, 0), "group_size is at least 1"),
        (lambda: Placeholder("<object>"), "token_id has to be a whole number"),
        (lambda: RowSet("lats"), "Did you mean last?"),
        (lambda: spans_of_samples([3], 1), "visual holds 3"),
        (lambda: spans_of_samples([Placeholder(7)], 1), "one Placeholder alone for all samples"),
        (lambda: layout_of([(VisualSpan(0, 6),), ()], LIVE), "ends at position 6, and its prompt has 5"),
        (lambda: layout_of([(VisualSpan(0, 2), VisualSpan(1, 2)), ()], LIVE), "overlaps"),
        (lambda: spans_of_samples([VisualSpan(0, 1)], 2), "1 entries for a batch of 2"),
        (lambda: spans_of_samples([(0, 1), ()], 2), "visual holds 0"),
        (lambda: live_tokens(torch.tensor([[1, 1, 0]]), 1, 3, "cpu"), "padded on the right"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_padding_is_read_from_masks_of_every_shape():
    square = torch.zeros(2, 1, 7, 7)
    square[0, 0, :, :2] = torch.finfo(torch.float32).min
    for mask in (LIVE.long(), square, square == 0):
        assert torch.equal(live_tokens(mask, 2, 7, "cpu"), LIVE)


def test_rows_of_text_are_those_after_the_visual_tokens():
    layout = layout_of([(VisualSpan(1, 2),), (VisualSpan(0, 1),)], LIVE)
    assert RowSet("last").weights(layout).tolist() == [[0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1]]
    assert RowSet("text", 1, 1).weights(layout)[1].tolist() == pytest.approx([0, 0, 0.25, 0.25, 0.25, 0.25, 0])
    assert RowSet("last", count=(1, 2)).weights(layout)[1].tolist() == [0, 0, 0, 0, 0, 0.5, 0.5]
    # Nothing is left of the first prompt's text: its last row counts.
    assert RowSet("text", 1, 1).weights(layout)[0].tolist() == [0, 0, 0, 0, 0, 0, 1]
