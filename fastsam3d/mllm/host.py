"""The interface of a host. A host says where the parts of one kind of language model are."""

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
        model: the model that the user accelerates, or the part that it names as `accelerated_part`.
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
        """The module with the methods `generate` and `forward`, without wrappers such as those of PEFT."""

    @property
    @abstractmethod
    def decoder(self) -> Any:
        """The module that runs the layers. Its `forward` takes `inputs_embeds`, `attention_mask` and a cache."""

    @property
    @abstractmethod
    def layers(self) -> Sequence[Any]:
        """The layers in order: `forward(hidden_states, attention_mask=, position_embeddings=, ...)`."""

    @abstractmethod
    def check(self) -> None:
        """Refuses a model that cannot be pruned.

        Raises:
            UserError: with the reason.
        """

    @abstractmethod
    def describe_differences(self) -> list[str]:
        """What this host expects and the model does not have, one line for each difference."""

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """Sizes by which costs are counted."""

    @property
    @abstractmethod
    def additive_masks(self) -> bool:
        """Whether masks of the layers are added to logits; otherwise they are bool, and None means causal.

        Raises:
            UserError: the attention implementation is not supported.
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
        """The keys that `keys` gives, from a cache that one prompt has filled; None where it holds no such tensor."""

    @abstractmethod
    def attention(
        self, index: int, hidden: Tensor, given: Mapping[str, Any], keys: Tensor, live: Tensor, weights: Tensor
    ) -> Tensor:
        """Attention weights of a layer, averaged over its heads and over the rows of each set, (K, B, S) float32.

        Args:
            index, hidden, given: as for `keys`.
            keys: of the layer.
            live: (B, S) bool: no padding.
            weights: (K, B, S) weight of each row in the mean, for each of K sets.
        """

    def offers(self, stage: str) -> frozenset[str]:
        """Capabilities that techniques may ask for."""
        return frozenset(CAPABILITIES)

    def refusals(self) -> dict[tuple[str, str], str]:
        """Reasons why this model cannot offer a capability, by (stage, capability)."""
        return {}
