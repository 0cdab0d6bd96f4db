"""The small model: a plain Llama of transformers, and projectors that turn the features of objects into tokens.

As in Chat-Scene, an object has three tokens: its identifier, its feature of shape, and its feature of pictures. The
Llama is an unmodified `LlamaForCausalLM`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsam3d.errors import UserError
from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.scenes import features

GROUP = 3  # tokens of each object


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the small model.

    Attributes:
        width: width of the hidden states.
        layers, heads: numbers of layers, and of heads in each layer.
        feed_forward: inner width of its feed-forward layers.
        identifier_share: factor with which the embedding of the identifier is added to the two features of its object.
    """

    width: int = 128
    layers: int = 8
    heads: int = 4
    feed_forward: int = 352
    identifier_share: float = 0.5


class FeatureProjector(nn.Module):
    """Turns a feature into a token: two linear layers, then a scaling to root mean square 1."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(inputs, 2 * width)
        self.outer = nn.Linear(2 * width, width)

    def forward(self, values: Tensor) -> Tensor:
        """(..., inputs) -> (..., width) of root mean square 1."""
        return unit(self.outer(functional.gelu(self.inner(values))))


class SceneLanguageModel(nn.Module):
    """A language model that reads the objects of a room.

    Attributes:
        language_model: a `LlamaForCausalLM`. It can generate, and be accelerated, as any other.
        geometry_projector, appearance_projector: projectors of the two features of an object.
        token_size: learned factor of the tokens of features, a scalar.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.language_model: Any = _llama(config)
        self.geometry_projector = FeatureProjector(features.GEOMETRY, config.width)
        self.appearance_projector = FeatureProjector(features.APPEARANCE, config.width)
        self.token_size = nn.Parameter(torch.ones(()))

    @property
    def accelerated_part(self) -> Any:
        """The language model: what `fastsam3d.accelerate` acts on."""
        return self.language_model

    def object_tokens(self, identifiers: Tensor, geometry: Tensor, appearance: Tensor) -> Tensor:
        """Computes the tokens of objects: for each object identifier, shape and pictures.

        Args:
            identifiers: (..., N) int64 identifiers of the objects, such as 12 for `<OBJ012>`.
            geometry, appearance: (..., N, inputs), see `scenes.features`.

        Returns:
            (..., 3 N, width).
        """
        called = self.embed(identifiers + tokens.first_identifier())
        shared = self.config.identifier_share * unit(called)
        shape = self.token_size * (self.geometry_projector(geometry) + shared)
        pictures = self.token_size * (self.appearance_projector(appearance) + shared)
        return torch.stack([called, shape, pictures], dim=-2).flatten(-3, -2)

    def embed(self, numbers: Tensor) -> Tensor:
        """Embeddings of token numbers. (...) -> (..., width)."""
        return self.language_model.get_input_embeddings()(numbers)


def unit(values: Tensor) -> Tensor:
    """Scales vectors to root mean square 1."""
    return functional.rms_norm(values, values.shape[-1:], eps=1e-6)


def _llama(config: ModelConfig) -> Any:
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise UserError("language models need transformers: pip install 'fastsam3d[mllm]'") from error
    settings = LlamaConfig(
        vocab_size=len(tokens.words()),
        hidden_size=config.width,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=tokens.PADDING,
        bos_token_id=tokens.BEGIN,
        eos_token_id=tokens.END,
    )
    return LlamaForCausalLM(settings)
