"""Where the visual tokens are in a prompt: spans of groups, one group for each object of the scene.

A position counts from the first token of a sample's own prompt: padding on the left is not counted, so that a prompt
builder need not know the batch. All shapes here: B samples, S columns of the padded batch, N groups of the sample that
has most.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastsam3d.errors import UserError

NO_GROUP = -1


@dataclass(frozen=True)
class VisualSpan:
    """Visual tokens that follow one another in a prompt, in groups of equal size.

    Attributes:
        start: position of the first visual token.
        groups: number of groups, for instance objects.
        group_size: tokens of each group. They stay or leave together.
        mask: one bool for each group. False: a padding object, a group that only fills the prompt up to its fixed
            number of objects. It leaves at the first cut, and counts for no budget. None: there is no padding object.
            A group whose tokens are all hidden by the attention mask of the prompt is a padding object, too.

    Raises:
        UserError: a number is not whole or out of range, or the mask has another length.
    """

    start: int
    groups: int
    group_size: int = 1
    mask: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        _make_whole(self, ("start", "groups", "group_size"))
        if self.start < 0 or self.groups < 0 or self.group_size < 1:
            raise UserError(
                f"{self}: start and groups are at least 0, and group_size at least 1. Take them from what builds the "
                "prompt."
            )
        if self.mask is not None:
            object.__setattr__(self, "mask", tuple(bool(there) for there in self.mask))
            if len(self.mask) != self.groups:
                raise UserError(
                    f"a span of {self.groups} groups has a mask of {len(self.mask)}: give one value for each group"
                )

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + self.groups * self.group_size


@dataclass(frozen=True)
class Placeholder:
    """Visual tokens that are found by a token id: in `input_ids`, this id stands at each of their positions.

    Attributes:
        token_id: the id. Where it stands several times in a row, these positions are one span.
        group_size: tokens of each group.

    Raises:
        UserError: a number is not whole, or the group size is less than 1.
    """

    token_id: int
    group_size: int = 1

    def __post_init__(self) -> None:
        _make_whole(self, ("token_id", "group_size"))
        if self.group_size < 1:
            raise UserError(f"{self}: group_size is at least 1. Take it from what builds the prompt.")

    def spans(self, input_ids: Tensor, live: Tensor) -> list[tuple[VisualSpan, ...]]:
        """Finds the spans of every sample.

        Args:
            input_ids, live: (B, S); `live` is False at padding.

        Raises:
            UserError: a span is not a whole number of groups.
        """
        found = []
        for row, first in zip(input_ids.cpu(), live.int().argmax(1).tolist(), strict=True):
            places = torch.nonzero(row[first:] == self.token_id).flatten().tolist()
            runs: list[list[int]] = []
            for place in places:
                if runs and place == runs[-1][-1] + 1:
                    runs[-1].append(place)
                else:
                    runs.append([place])
            for run in runs:
                if len(run) % self.group_size:
                    raise UserError(
                        f"the placeholder {self.token_id} stands {len(run)} times at position {run[0]}, which is no "
                        f"multiple of the group size {self.group_size}: give the group size of the prompt"
                    )
            found.append(tuple(VisualSpan(run[0], len(run) // self.group_size, self.group_size) for run in runs))
        return found


def _make_whole(span: VisualSpan | Placeholder, names: Sequence[str]) -> None:
    """Turns numbers of other libraries, such as numpy's, into Python's, and refuses those that are not whole."""
    for name in names:
        try:
            object.__setattr__(span, name, operator.index(getattr(span, name)))
        except TypeError:
            raise UserError(f"{span}: {name} has to be a whole number") from None


@dataclass
class Layout:
    """Which token of a batch belongs to which group, for the tokens that are still there.

    Attributes:
        live: (B, S) bool: there is a token, neither padding nor an empty place.
        group_of: (B, S) int64: group of each visual token, `NO_GROUP` elsewhere.
        present: (B, N) bool: groups that hold an object and have not left.
        last_visual: (B,): column after which the text begins: that of the last visual token before any cut, or, after a
            cut, the column before the first token of the text. -1 without visual tokens.
        groups: (B,) number of groups in the spans of each sample, padding objects included.
    """

    live: Tensor
    group_of: Tensor
    present: Tensor
    last_visual: Tensor
    groups: Tensor

    @property
    def visual(self) -> Tensor:
        """(B, S) bool: visual tokens, those of padding objects included."""
        return self.group_of != NO_GROUP

    def take(self, rows: slice) -> Layout:
        """The layout of some samples."""
        return Layout(*(part[rows] for part in self._parts))

    def repeat(self, times: int) -> Layout:
        """The layout of a batch in which each sample comes `times` times in a row, as in beam search."""
        return Layout(*(part.repeat_interleave(times, dim=0) for part in self._parts))

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        return self.live, self.group_of, self.present, self.last_visual, self.groups

    def summed(self, values: Tensor) -> Tensor:
        """Sums of values over the tokens of each group. (B, S) or (B, S, D) -> (B, N) or (B, N, D)."""
        shape = (*self.present.shape, *values.shape[2:])
        index = self.group_of.clamp(min=0)
        own = self.visual.to(values.dtype)
        if values.dim() == 3:
            index, own = index[..., None].expand_as(values), own[..., None]
        return values.new_zeros(shape).scatter_add(1, index, values * own)

    def averaged(self, values: Tensor) -> Tensor:
        """Means of values over the tokens of each group. (B, S, D) -> (B, N, D); 0 for a group without tokens."""
        sizes = self.summed(torch.ones_like(values[..., 0]))
        return self.summed(values) / sizes.clamp(min=1)[..., None]


def live_tokens(attention_mask: Tensor | None, rows: int, columns: int, device: Any) -> Tensor:
    """Which tokens of a batch are not padding, (B, S) bool.

    Args:
        attention_mask: as given to the model: (B, S), or (B or 1, 1, S, S) bool or additive, whose last row is read;
            None without padding.
        rows, columns: B and S.
        device: of the result.

    Raises:
        UserError: the batch is padded on the right, where new tokens are added.
    """
    if attention_mask is None:
        return torch.ones(rows, columns, dtype=torch.bool, device=device)
    mask = attention_mask
    if mask.dim() == 4:
        mask = mask[:, 0, -1]
        live = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    else:
        live = mask.bool()
    live = live.to(device).expand(rows, columns)
    if not bool(live[:, -1].all()):
        raise UserError("the batch is padded on the right, where new tokens are added: pad it on the left")
    return live


def live_for_counts(attention_mask: Any, rows: int, columns: int, device: Any) -> Tensor:
    """Which tokens are not padding, (B, S) bool, for runs in which nothing leaves. Padding may be on either side."""
    if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
        return attention_mask.bool().to(device)
    return live_tokens(None, rows, columns, device)


def layout_of(spans: Sequence[Sequence[VisualSpan]], live: Tensor) -> Layout:
    """Finds the tokens of spans in a batch.

    Args:
        spans: of every sample. The groups of a sample are numbered from its first span to its last.
        live: (B, S) bool: not padding. Tokens within a prompt may be hidden, too: positions count them.

    Raises:
        UserError: a span ends after the end of its prompt, or two spans of a sample overlap.
    """
    counted = torch.tensor([sum(span.groups for span in row) for row in spans], dtype=torch.int64)
    groups = max(counted.tolist(), default=0)
    group_of = torch.full(live.shape, NO_GROUP, dtype=torch.int64)
    present = torch.zeros(len(spans), groups, dtype=torch.bool)
    last_visual = torch.full((len(spans),), -1, dtype=torch.int64)
    shown, first = live.cpu(), live.int().argmax(1).tolist()
    for row, of_row in enumerate(spans):
        before = 0
        for span in of_row:
            if span.end > live.shape[1] - first[row]:
                raise UserError(
                    f"the {span} of sample {row} ends at position {span.end}, and its prompt has "
                    f"{live.shape[1] - first[row]} tokens: give the positions of the prompt as the model sees it"
                )
            columns = slice(first[row] + span.start, first[row] + span.end)
            if (group_of[row, columns] != NO_GROUP).any():
                raise UserError(f"the {span} of sample {row} overlaps another of its spans: give each token once")
            numbers = torch.arange(before, before + span.groups)
            group_of[row, columns] = numbers.repeat_interleave(span.group_size)
            there = (True,) * span.groups if span.mask is None else span.mask
            seen = shown[row, columns].view(span.groups, span.group_size).any(1)
            present[row, before : before + span.groups] = torch.tensor(there, dtype=torch.bool) & seen
            if span.groups:
                last_visual[row] = max(int(last_visual[row]), columns.stop - 1)
            before += span.groups
    device = live.device
    return Layout(live, *(part.to(device) for part in (group_of, present, last_visual, counted)))


def spans_of_samples(visual: Any, samples: int) -> list[tuple[VisualSpan, ...]]:
    """Brings the spans that a caller gives into one form: a tuple for each sample.

    Args:
        visual: one `VisualSpan` for all samples; or a list with one entry a sample, each a span, a list of spans, or
            an empty list.
        samples: number of samples in the batch.

    Raises:
        UserError: the number of entries is not the number of samples, or an entry is not a span.
    """
    if isinstance(visual, VisualSpan):
        return [(visual,)] * samples
    if not _is_list(visual) or len(visual) != samples:
        entries = f"{len(visual)} entries" if _is_list(visual) else f"a {type(visual).__name__}"
        raise UserError(
            f"visual has {entries} for a batch of {samples}: give one VisualSpan for all samples, or a list with one "
            "entry for each sample"
        )
    rows = [() if row is None else tuple(row) if _is_list(row) else (row,) for row in visual]
    strange = [span for row in rows for span in row if not isinstance(span, VisualSpan)]
    if strange:
        raise UserError(
            f"visual holds {strange[0]!r}: give fastsam3d.mllm.VisualSpan(start, groups, group_size) for each span, or "
            "one Placeholder alone for all samples"
        )
    return rows


def layout_of_prompts(visual: Any, live: Tensor, input_ids: Tensor | None) -> Layout:
    """Finds the visual tokens of prompts.

    Args:
        visual: as for `spans_of_samples`, or a `Placeholder`.
        live: (B, S) bool: not padding.
        input_ids: (B, S) token ids, in which a `Placeholder` is searched; None where embeddings were given.

    Raises:
        UserError: as for `spans_of_samples`, `Placeholder.spans` and `layout_of`; or a placeholder has no ids.
    """
    if not isinstance(visual, Placeholder):
        return layout_of(spans_of_samples(visual, len(live)), live)
    if input_ids is None:
        raise UserError("a placeholder is searched in input_ids, and the prompt came as embeddings: give a VisualSpan")
    return layout_of(visual.spans(input_ids, live), live)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
