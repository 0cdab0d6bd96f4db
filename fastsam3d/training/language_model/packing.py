"""Many questions about one room in one pass: the room is read once, and every question sees the room and itself.

Equal to reading each question in a sequence of its own (a test compares the two), and several times as fast. The
weights are those of a plain `LlamaForCausalLM`; its own `forward` cannot share a prefix within one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class Packed:
    """What a packed pass gives.

    Attributes:
        hidden: (B, Q, L, D) normalised hidden states of the questions, before the head.
        looked_at: by watched layer: (B, Q, R, P) attention of the asked rows to the prefix, averaged over the heads.
        average: (B, Q, R, P) the same averaged over all layers; None where it was not asked for.
        words_looked_at: by watched layer: (B, Q, R, L) attention of the asked rows to the words of their own question.
    """

    hidden: Tensor
    looked_at: dict[int, Tensor]
    words_looked_at: dict[int, Tensor]
    average: Tensor | None = None


def read_packed(
    language_model: Any,
    prefix: Tensor,
    questions: Tensor,
    there: Tensor,
    rows: Tensor | None = None,
    watched: Sequence[int] = (),
    averaged: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Packed:
    """Runs the decoder over rooms and their questions.

    Args:
        language_model: a `LlamaForCausalLM`.
        prefix: (B, P, D) embeddings of what comes before the questions.
        questions: (B, Q, L, D) embeddings; padding is on the right.
        there: (B, Q, L) bool: no padding. Padded tokens are computed in the attention alone.
        rows: (B, Q, R) places in the questions whose attention is wanted.
        watched: layers whose attention is wanted.
        averaged: whether the mean of all layers' attention is wanted.
        dtype: of products and attention; hidden states stay in that of the embeddings.
    """
    batch, count, length, width = questions.shape
    start, device = prefix.shape[1], prefix.device
    places = torch.arange(start + length, device=device)
    cos, sin = language_model.model.rotary_emb(prefix, places[None])
    kept = there.reshape(-1).nonzero().flatten()
    own = places[start:].expand(batch, count, -1).reshape(-1)[kept]
    tables = [torch.cat([t[0, :start].repeat(batch, 1), t[0, own]])[:, None].to(dtype) for t in (cos, sin)]
    later = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    later_in_prefix = torch.ones(start, start, dtype=torch.bool, device=device).triu(1)
    states = torch.cat([prefix.flatten(0, 1), questions.flatten(0, 2)[kept]])
    layers, first = language_model.model.layers, batch * start
    looked_at: dict[int, Tensor] = {}
    words_looked_at: dict[int, Tensor] = {}
    total: Tensor | None = None
    for index, layer in enumerate(layers):
        last = index == len(layers) - 1
        attention = layer.self_attn
        size, heads = attention.head_dim, attention.q_proj.out_features // attention.head_dim
        normal = _normal(layer.input_layernorm, states, dtype)
        joint = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]).to(dtype)
        q, k, v = functional.linear(normal, joint).view(-1, 3 * heads, size).split(heads, dim=1)
        q, k = _rotated(q, tables), _rotated(k, tables)
        of_prefix = [x[:first].view(batch, start, heads, size).transpose(1, 2) for x in (q, k, v)]
        padded = [_padded(x[first:], kept, there.numel()) for x in (q, k, v)]
        of_questions = [x.view(batch, count * length, heads, size).transpose(1, 2) for x in padded]
        mixed, weights = _questions_attend(of_questions, of_prefix, later, count)
        if index in watched or averaged:
            assert rows is not None
            chosen = rows[:, None, :, :, None].expand(-1, heads, -1, -1, start + length)
            seen, own_seen = weights.gather(3, chosen).mean(1).split([start, length], dim=-1)
            if index in watched:
                looked_at[index], words_looked_at[index] = seen, own_seen
            if averaged:
                total = seen.float() if total is None else total + seen.float()
        mixed = mixed.transpose(1, 2).reshape(-1, heads * size)[kept]
        if last:  # nobody reads what the prefix becomes
            states = states[first:]
        else:
            among = _attend_causally(of_prefix, later_in_prefix)
            mixed = torch.cat([among.transpose(1, 2).reshape(first, -1), mixed])
        states = states + functional.linear(mixed, attention.o_proj.weight.to(dtype))
        normal = _normal(layer.post_attention_layernorm, states, dtype)
        mlp = layer.mlp
        gate, up = (functional.linear(normal, part.weight.to(dtype)) for part in (mlp.gate_proj, mlp.up_proj))
        states = states + functional.linear(functional.silu(gate) * up, mlp.down_proj.weight.to(dtype))
    hidden = _padded(language_model.model.norm(states), kept, there.numel()).view(batch, count, length, width)
    average = None if total is None else total / len(layers)
    return Packed(hidden, looked_at, words_looked_at, average)


def _padded(values: Tensor, kept: Tensor, length: int) -> Tensor:
    """Rows back at their places, with zeros between them."""
    return values.new_zeros(length, *values.shape[1:]).index_copy(0, kept, values)


def _normal(norm: Any, states: Tensor, dtype: torch.dtype) -> Tensor:
    return functional.rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon).to(dtype)


def _questions_attend(
    of_questions: list[Tensor], of_prefix: list[Tensor], later: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Attention of the questions to the prefix and to themselves.

    Args:
        of_questions: queries, keys and values, (B, heads, Q L, d).
        of_prefix: the same, (B, heads, P, d).
        later: (L, L) bool: pairs that must not see each other.
        count: questions.

    Returns:
        outputs (B, heads, Q L, d), and weights (B, heads, Q, L, P + L).
    """
    q, k, v = of_questions
    length, start = later.shape[0], of_prefix[1].shape[2]
    q = q * q.shape[-1] ** -0.5
    to_prefix = (q @ of_prefix[1].transpose(-1, -2)).unflatten(2, (count, length))
    own_q, own_k, own_v = (x.unflatten(2, (count, length)) for x in (q, k, v))
    to_own = (own_q @ own_k.transpose(-1, -2)).masked_fill(later, float("-inf"))
    weights = torch.cat([to_prefix, to_own], dim=-1).softmax(-1)
    outputs = weights[..., :start].flatten(2, 3) @ of_prefix[2]
    return outputs + (weights[..., start:] @ own_v).flatten(2, 3), weights


def _attend_causally(states: list[Tensor], later: Tensor) -> Tensor:
    """Causal attention of queries, keys and values. Written out, its backward pass takes half the time on a CPU."""
    q, k, v = states
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return logits.masked_fill(later, float("-inf")).softmax(-1) @ v


def _rotated(states: Tensor, tables: list[Tensor]) -> Tensor:
    """Turns queries or keys (tokens, heads, d) by their places."""
    first, second = states.chunk(2, dim=-1)
    cos, sin = tables
    return states * cos + torch.cat((-second, first), dim=-1) * sin
