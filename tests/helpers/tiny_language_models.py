"""Language models of a few thousand random parameters, their prompts, and a reference for pruning of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastsam3d.mllm import VisualSpan

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")
SPANS: list[Any] = [VisualSpan(4, 8, 3), VisualSpan(3, 8, 3), [VisualSpan(2, 4, 3), VisualSpan(15, 4, 3)]]


def tiny_model(family: str = "llama", attention: str = "sdpa", layers: int = 4, **settings: Any) -> Any:
    """A model in evaluation mode; its weights depend on a fixed seed, and are large enough to tell tokens apart."""
    import transformers

    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "mistral": "Mistral"}[family]
    sizes = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
    }
    special = {"mistral": {"sliding_window": None}, "qwen3": {"head_dim": 8}}.get(family, {})
    config = getattr(transformers, f"{name}Config")(**sizes | special | settings)
    config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def prompts(lengths: tuple[int, ...] = (40, 33, 37)) -> dict[str, Tensor]:
    """Token ids and mask of a batch that is padded on the left."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, -length:] = torch.randint(2, 97, (length,), generator=generator)
        mask[row, -length:] = 1
    return {"input_ids": ids, "attention_mask": mask}


def cached(cache: Any, model: Any) -> dict[str, Any]:
    """A cache as a keyword argument of a model, whose name depends on the version of transformers."""
    import inspect

    return {"cache" if "cache" in inspect.signature(model.model.forward).parameters else "past_key_values": cache}


def masked_logits(model: Any, ids: Tensor, layer: int, dropped: list[int]) -> Tensor:
    """Logits of one prompt whose columns `dropped` are hidden from `layer` on. (1, S) -> (S, vocabulary).

    Written out layer by layer with whole masks; it shares nothing with the library.
    """
    decoder, length = model.model, ids.shape[1]
    hidden = decoder.embed_tokens(ids)
    tables = decoder.rotary_emb(hidden, torch.arange(length)[None])
    causal = torch.full((length, length), torch.finfo(hidden.dtype).min).triu(1)
    hiding = causal.clone()
    hiding[:, dropped] = torch.finfo(hidden.dtype).min
    for index, block in enumerate(decoder.layers):
        mask = (causal if index < layer else hiding)[None, None]
        hidden = block(hidden, attention_mask=mask, position_embeddings=tables)
    return model.lm_head(decoder.norm(hidden))[0]
