"""Llama and models with the same decoder interface in Hugging Face transformers, which is used unmodified.

Checked against the code of transformers 4.56 and 5.24. The decoder computes one mask and one pair (cos, sin) of rotary
tables for all layers. It calls each layer with the hidden states first and everything else by keyword; a layer returns
a plain tensor. The keyword for the cache is `past_key_values` before 5.x and `cache` after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastsam3d.errors import UserError
from fastsam3d.mllm.attention_rows import attention_of_rows, rotated
from fastsam3d.mllm.counting.costs import Sizes
from fastsam3d.mllm.dropping.token_dropping import as_bool
from fastsam3d.mllm.host import Host

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `config.model_type`. Vicuna and SmolLM2 are of the type llama."""
IMPLEMENTATIONS = ("sdpa", "eager")
_LAYER_PARTS = ("self_attn", "input_layernorm", "mlp")
_ATTENTION_PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling")


class LlamaHost(Host):
    """A causal language model of transformers, alone or within PEFT's wrappers."""

    name = "language models of transformers (Llama, Vicuna, SmolLM2, Mistral, Qwen2, Qwen3)"

    @classmethod
    def recognises(cls, model: Any) -> bool:
        kind = getattr(getattr(model, "config", None), "model_type", None)
        return (
            isinstance(kind, str) and callable(getattr(model, "generate", None)) and isinstance(model, torch.nn.Module)
        )

    @property
    def language_model(self) -> Any:
        wrapper = getattr(self._model, "get_base_model", None)
        return wrapper() if callable(wrapper) else self._model

    @property
    def decoder(self) -> Any:
        return self.language_model.get_decoder()

    @property
    def layers(self) -> Sequence[Any]:
        return list(self.decoder.layers)

    def check(self) -> None:
        config = self._model.config
        reasons = self.describe_differences()
        if config.model_type not in MODEL_TYPES:
            reasons.insert(0, f"its type is {config.model_type!r}, and supported are {', '.join(MODEL_TYPES)}")
        if reasons:
            raise UserError(f"cannot prune this {type(self._model).__name__}: {reasons[0]}.")
        if isinstance(self._model, torch._dynamo.eval_frame.OptimizedModule) or self._model._compiled_call_impl:
            raise UserError("the model is compiled, and the number of tokens depends on the data: do not compile it.")
        kinds = getattr(config, "layer_types", None)
        window = getattr(config, "sliding_window", None)
        if window is not None if kinds is None else set(kinds) != {"full_attention"}:
            raise UserError(
                f"the model attends within a sliding window of {window} tokens, which would count tokens that have "
                "left: load it with sliding_window=None in its config."
            )
        _ = self.additive_masks

    def describe_differences(self) -> list[str]:
        if not callable(getattr(self.language_model, "get_decoder", None)):
            return [f"{type(self.language_model).__name__} has no get_decoder"]
        layers = getattr(self.decoder, "layers", None)
        if layers is None or len(layers) == 0:
            return [f"{type(self.decoder).__name__} has no layers"]
        lines = [f"layer 0 has no {part}" for part in _LAYER_PARTS if not hasattr(layers[0], part)]
        attention = getattr(layers[0], "self_attn", None)
        lacking = [part for part in _ATTENTION_PARTS if not hasattr(attention, part)]
        return lines + [f"the attention of layer 0 has no {part}" for part in lacking]

    @property
    def sizes(self) -> Sizes:
        config, attention = self._model.config, self.layers[0].self_attn
        heads = config.num_attention_heads
        return Sizes(
            len(self.layers),
            config.hidden_size,
            heads,
            getattr(config, "num_key_value_heads", None) or heads,
            attention.head_dim,
            config.intermediate_size,
            config.vocab_size,
            next(self.layers[0].parameters()).element_size(),
        )

    @property
    def additive_masks(self) -> bool:
        implementation = self.decoder.config._attn_implementation
        if implementation not in IMPLEMENTATIONS:
            raise UserError(
                f"the attention implementation is {implementation!r}, and tokens can leave only with "
                f"{' and '.join(IMPLEMENTATIONS)}: call model.set_attn_implementation('sdpa')."
            )
        return bool(implementation == "eager")

    def keys(self, index: int, hidden: Tensor, given: Mapping[str, Any]) -> Tensor:
        return self._projected("k", index, hidden, given, 0)

    def cached_keys(self, index: int, cache: Any) -> Tensor | None:
        layers = getattr(cache, "layers", ())
        keys = getattr(layers[index], "keys", None) if index < len(layers) else None
        return keys if isinstance(keys, Tensor) and keys.dim() == 4 else None

    def attention(
        self, index: int, hidden: Tensor, given: Mapping[str, Any], keys: Tensor, live: Tensor, weights: Tensor
    ) -> Tensor:
        first = int((weights > 0).flatten(0, 1).any(0).int().argmax())
        queries = self._projected("q", index, hidden, given, first)
        mask, columns = given.get("attention_mask"), torch.arange(hidden.shape[1], device=queries.device)
        if mask is None:
            allowed = (columns <= columns[first:, None]) & live[:, None].to(queries.device)
        else:
            allowed = as_bool(mask[:, 0, first:].to(queries.device)).expand(len(hidden), -1, -1)
        allowed = allowed | ~allowed.any(-1, keepdim=True)
        rows = attention_of_rows(queries, keys.to(queries.device), allowed, self.layers[index].self_attn.scaling)
        return torch.einsum("kbr,brs->kbs", weights[..., first:].to(rows.device), rows)

    def _projected(self, kind: str, index: int, hidden: Tensor, given: Mapping[str, Any], first: int) -> Tensor:
        """Rotated queries ("q") or keys ("k") of a layer, from a row on: (B, heads, S - first, d)."""
        layer = self.layers[index]
        attention = layer.self_attn
        projection = getattr(attention, f"{kind}_proj")
        # Layers of one model may lie on several devices.
        states = projection(layer.input_layernorm(hidden[:, first:].to(projection.weight.device)))
        states = states.view(*states.shape[:2], -1, attention.head_dim)
        norm = getattr(attention, f"{kind}_norm", None)
        states = (states if norm is None else norm(states)).transpose(1, 2)
        cos, sin = (table[:, first:].to(states.device) for table in given["position_embeddings"])
        return rotated(states, cos, sin)
