"""Checks that refuse calls which cannot work when tokens leave. Each error says what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.mllm.spans import Layout

GROWING_LAYERS = ("DynamicLayer",)
"""Classes of cache layers whose lengths are independent of one another."""


def refuse_generation(given: Mapping[str, Any], default: Any) -> None:
    """Checks the arguments of `generate`.

    Args:
        given: the arguments by name, with `generation_config` where the caller gives one.
        default: the model's own generation config.

    Raises:
        UserError: an argument asks for something that does not work with pruning, such as a static cache.
    """
    config = given.get("generation_config") or default

    def value(name: str) -> Any:
        return given.get(name) if given.get(name) is not None else getattr(config, name, None)

    kind = value("cache_implementation")
    if kind not in (None, "dynamic"):
        raise UserError(
            f"cache_implementation is {kind!r}: such a cache has one length for all layers or stores quantised "
            "numbers, and pruned layers are shorter. Leave cache_implementation out"
        )
    if value("prefill_chunk_size") is not None:
        raise UserError(
            "the prompt would be read in chunks, and visual tokens are ranked over the whole prompt: leave "
            "prefill_chunk_size out"
        )
    if any(value(n) is not None for n in ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")):
        raise UserError(
            "assisted decoding takes tokens back out of the cache, and pruned layers are shorter: generate without an "
            "assistant"
        )
    if value("guidance_scale") not in (None, 1, 1.0):
        raise UserError(
            "guidance_scale also reads a second prompt, which has no visual tokens: generate without guidance"
        )
    if value("use_cache") is False:
        raise UserError(
            "without a cache the whole prompt is read and ranked again for each token: leave use_cache=False out"
        )


def refuse_cache(cache: Any) -> None:
    """Checks a cache that a prompt is read into.

    Raises:
        UserError: its layers cannot have different lengths.
    """
    if cache is None:
        return
    strange = [type(layer).__name__ for layer in getattr(cache, "layers", ())]
    strange = [name for name in strange if name not in GROWING_LAYERS]
    if strange or not hasattr(cache, "layers"):
        raise UserError(
            f"a {type(cache).__name__} with layers of the kind {(strange or ['unknown'])[0]} has one length for all "
            "layers, and pruned layers are shorter: use transformers' DynamicCache"
        )


def refuse_continuation(rows: int, length: int) -> None:
    """Refuses more than one new token for a filled cache.

    Args:
        rows: of the batch.
        length: number of new tokens of each row.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"the cache already holds a prompt, and {length} more tokens come for each of {rows} rows (a second turn, a "
        "stored prefix, a prompt in chunks, or assisted decoding). Visual tokens can leave only while a whole prompt "
        "is read: give the whole prompt with an empty cache"
    )


def refuse_rows(filled: int, rows: int) -> None:
    """Checks the batch of a step of generation.

    Args:
        filled: rows of the prompts in the cache.
        rows: of the step.

    Raises:
        UserError: they differ.
    """
    if rows != filled:
        raise UserError(
            f"the cache was filled by a batch of {filled} and is used with {rows}, but what has left is known for the "
            "whole batch only: use the same batch, or read the prompts again"
        )


def refuse_foreign_cache(cache: Any, layers: int) -> None:
    """Checks a filled cache that this acceleration does not know.

    Raises:
        UserError: its layers have unequal lengths, so it was filled under another acceleration or is a copy.
    """
    kinds = {type(layer).__name__ for layer in getattr(cache, "layers", ())}
    if kinds and kinds.issubset(GROWING_LAYERS):
        lengths = {int(cache.get_seq_length(index)) for index in range(layers)}
        if len(lengths) > 1:
            raise UserError(
                f"the cache has layers of {min(lengths)} to {max(lengths)} tokens, so it was filled under an "
                "acceleration that has ended, or it is a copy: read the prompt again"
            )


def refuse_checkpointing(decoder: Any) -> None:
    """Checks that each layer runs only once.

    Raises:
        UserError: the decoder trains and runs its layers again in the backward pass.
    """
    if decoder.training and getattr(decoder, "gradient_checkpointing", False):
        raise UserError(
            "gradient checkpointing runs layers a second time, after other tokens may have left: call "
            "model.gradient_checkpointing_disable() or model.eval()"
        )


def refuse_labels() -> None:
    """Refuses labels, because no loss can be computed.

    Raises:
        UserError: always.
    """
    raise UserError(
        "labels have a value for every token of the prompt, and pruned tokens have no logits: set pruning.mask=true, "
        "which keeps all tokens, or leave labels out"
    )


def refuse_visual_end(layout: Layout) -> None:
    """Checks that every prompt ends with a token that cannot leave, because the answer begins at the last token.

    Raises:
        UserError: the last token of a prompt is a visual one.
    """
    ends = layout.visual[:, -1]
    if bool(ends.any()):
        raise UserError(
            f"the prompt of sample {int(ends.int().argmax())} ends with a visual token, and the answer begins at the "
            "last token, which must not leave: put text after the visual tokens, or leave its group out of the spans"
        )
