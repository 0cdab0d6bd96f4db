"""What the attachment asks of a host. A host says where things are in one kind of language model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from fastsam3d.mllm.capabilities import CAPABILITIES
from fastsam3d.mllm.counting.costs import Sizes


class Host(ABC):
    """One language model: a decoder of layers, called one after the other, under a head that generates.

    Args:
        model: what the user has.
    """

    name: ClassVar[str]
    family: ClassVar[str] = "mllm"

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    @abstractmethod
    def recognises(cls, model: Any) -> bool:
        """Whether this host knows such a model, by its attributes."""

    @property
    def target(self) -> Any:
        """The model that the user accelerates."""
        return self._model

    @property
    @abstractmethod
    def language_model(self) -> Any:
        """The module with the methods `generate` and `forward`, within wrappers such as those of PEFT."""

    @property
    @abstractmethod
    def decoder(self) -> Any:
        """The module that runs the layers. Its `forward` takes `inputs_embeds`, `attention_mask`, a cache by name."""

    @property
    @abstractmethod
    def layers(self) -> Sequence[Any]:
        """Layers in their order. `forward(hidden states, attention_mask=, position_embeddings=, ...)`."""

    @abstractmethod
    def check(self) -> None:
        """Refuses a model that cannot be pruned.

        Raises:
            UserError: with the reason.
        """

    @abstractmethod
    def describe_differences(self) -> list[str]:
        """What the model has other than this host expects, one line each."""

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """Sizes by which costs are counted."""

    @property
    @abstractmethod
    def additive_masks(self) -> bool:
        """Whether masks of the layers are added to logits; otherwise they are bool, and None means causal.

        Raises:
            UserError: the attention implementation is none that tokens can be taken from.
        """

    @abstractmethod
    def keys(self, index: int, hidden: Tensor, given: Mapping[str, Any]) -> Tensor:
        """Rotated keys of a layer, (B, key heads, S, d).

        Args:
            index: of the layer.
            hidden: (B, S, D) its input.
            given: the keyword arguments that it was called with.
        """

    @abstractmethod
    def cached_keys(self, index: int, cache: Any) -> Tensor | None:
        """The same from a cache that the layer has filled with one prompt; None where it holds none as they are."""

    @abstractmethod
    def attention(
        self, index: int, hidden: Tensor, given: Mapping[str, Any], keys: Tensor, live: Tensor, weights: Tensor
    ) -> Tensor:
        """Attention weights of a layer, averaged over the heads and over sets of rows, (K, B, S) float32.

        Args:
            index, hidden, given: as for `keys`.
            keys: of the layer.
            live: (B, S) bool: no padding.
            weights: (K, B, S) of the rows, for each of K sets.
        """

    def offers(self, stage: str) -> frozenset[str]:
        """Capabilities that techniques may ask for."""
        return frozenset(CAPABILITIES)

    def refusals(self) -> dict[tuple[str, str], str]:
        """Why this very model cannot offer a capability, by stage and capability."""
        return {}
