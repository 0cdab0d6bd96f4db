"""The predictor that Fast3D (ACM MM 2025) published: 158.9 million parameters, most of them a RoBERTa-base.

Its parameters have the names of the published file, so that file can be loaded. The network reads the text of a
question, the features of objects (of shape and of pictures, 1024 numbers each, not normalised) and their boxes, in
slots 0 to 99. It knows objects only by their slots, so the identifiers in a prompt have to be slots too. Give its
logits to the technique `external`, or store them with `stored_maps`.
Shapes: B prompts, N objects, T pieces of text, W width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsam3d.basics.reading.torch_archives import read_archive
from fastsam3d.errors import UserError
from fastsam3d.mllm.predictor.network import ABSENT_LOGIT
from fastsam3d.mllm.predictor.spatial import PAIR_FEATURES, hiding, pair_features, spatial_bias

_LISTED = 4
"""Most names of each kind in an error message."""
_OLD_BUFFER = "text_encoder.embeddings.position_ids"
"""Buffer that old versions of transformers store. It is equal in every model, and ignored."""


@dataclass(frozen=True)
class TextEncoderSizes:
    """Sizes of a RoBERTa, with the names of transformers. The defaults are those of roberta-base."""

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1
    bos_token_id: int = 0
    eos_token_id: int = 2


@dataclass(frozen=True)
class ReleasedSizes:
    """Sizes of a `ReleasedPredictor`. The defaults are those of the published one.

    Attributes:
        width: W.
        heads: H.
        layers: number of layers of the decoder.
        feed_forward: inner width of these layers.
        features: numbers in the features of an object, shape and pictures together.
        slots: largest number of objects in a scene.
        text: sizes of the text encoder.
    """

    width: int = 768
    heads: int = 12
    layers: int = 4
    feed_forward: int = 2048
    features: int = 2048
    slots: int = 100
    text: TextEncoderSizes = field(default_factory=TextEncoderSizes)


class ReleasedPredictor(nn.Module):
    """Predicts which share of the attention of a prompt each of its objects gets.

    Args:
        sizes: of the network.

    Raises:
        UserError: transformers is not installed.
    """

    def __init__(self, sizes: ReleasedSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes = sizes or ReleasedSizes()
        width = sizes.width
        self.text_encoder = _text_encoder(sizes.text)
        self.text_projector = nn.Linear(sizes.text.hidden_size, width)
        self.obj_feat_projector = nn.Linear(sizes.features, width)
        self.obj_id_embedding = nn.Embedding(sizes.slots, width)
        self.mm_encoder = ReleasedDecoder(width, sizes.heads, sizes.layers, sizes.feed_forward)
        self.out_head_attn = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.LayerNorm(width // 2, eps=1e-12),
            nn.Dropout(0.3),
            nn.Linear(width // 2, 1),
        )

    def forward(
        self, text_ids: Tensor, text_present: Tensor, features: Tensor, boxes: Tensor, present: Tensor
    ) -> Tensor:
        """Computes logits of the objects, (B, N) float32; `ABSENT_LOGIT` for objects that are not present.

        Args:
            text_ids: (B, T) token ids of RoBERTa. The text is the question as it is stored, with its instruction.
            text_present: (B, T) bool: not padding.
            features: (B, N, 2048), first shape, then pictures.
            boxes: (B, N, 6) centre x, y, z and full extents x, y, z in metres.
            present: (B, N) bool. The released code gives True for all slots of a scene, also where there is no object.

        Raises:
            UserError: there are more objects than slots.
        """
        if features.shape[1] > self.sizes.slots:
            raise UserError(
                f"the released predictor knows {self.sizes.slots} objects, and {features.shape[1]} were given: give "
                "fewer objects"
            )
        encoded = self.text_encoder(input_ids=text_ids, attention_mask=text_present.long())
        text = self.text_projector(encoded.last_hidden_state)
        objects = self.obj_feat_projector(features) + self.obj_id_embedding.weight[: features.shape[1]]
        objects = self.mm_encoder(objects, text, boxes, present, text_present)
        return self.out_head_attn(objects)[..., 0].float().masked_fill(~present, ABSENT_LOGIT)


class ReleasedDecoder(nn.Module):
    """The decoder: layers of spatial attention among the objects and attention to the text."""

    def __init__(self, width: int, heads: int, layers: int, feed_forward: int) -> None:
        super().__init__()
        self.loc_layers = nn.ModuleList([nn.Sequential(nn.Linear(6, width), nn.LayerNorm(width))])
        self.layers = nn.ModuleList(ReleasedLayer(width, heads, feed_forward) for _ in range(layers))

    def forward(self, objects: Tensor, text: Tensor, boxes: Tensor, present: Tensor, text_present: Tensor) -> Tensor:
        """Vectors of the objects, (B, N, W)."""
        pairs, hidden = pair_features(boxes[..., :3]), hiding(present)
        places = self.loc_layers[0](boxes)
        for layer in self.layers:
            objects = layer(objects + places, text, pairs, hidden, ~text_present)
        return objects


class ReleasedLayer(nn.Module):
    """One layer of the decoder."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.self_attn = ReleasedSpatialAttention(width, heads)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, objects: Tensor, text: Tensor, pairs: Tensor, hidden: Tensor, no_text: Tensor) -> Tensor:
        """Vectors of the objects after this layer."""
        topic = text[:, :1]
        objects = objects + self.dropout(self.self_attn(self.norm1(objects), topic, pairs, hidden))
        attended = self.multihead_attn(self.norm2(objects), text, text, key_padding_mask=no_text, need_weights=False)
        objects = objects + self.dropout(attended[0])
        inner = self.dropout(functional.gelu(self.linear1(self.norm3(objects))))
        return objects + self.dropout(self.linear2(inner))


class ReleasedSpatialAttention(nn.Module):
    """Attention among objects that depends on their places. The residual and the norm are inside."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.w_qs, self.w_ks, self.w_vs = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.fc, self.layer_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.lang_cond_fc = nn.Linear(width, heads * (1 + PAIR_FEATURES))
        self.dropout = nn.Dropout(0.1)

    def forward(self, objects: Tensor, topic: Tensor, pairs: Tensor, hidden: Tensor) -> Tensor:
        """(B, N, W), the first piece of text (B, 1, W), `pair_features`, and `hiding` -> (B, N, W)."""
        query, key, value = (
            project(objects).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for project in (self.w_qs, self.w_ks, self.w_vs)
        )
        conditions = self.lang_cond_fc(objects + topic).unflatten(-1, (self._heads, 1 + PAIR_FEATURES))
        bias = spatial_bias(conditions, pairs, hidden)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.layer_norm(objects + self.dropout(self.fc(attended.transpose(1, 2).flatten(2))))


def load_released_predictor(path: str | Path, sizes: ReleasedSizes | None = None) -> ReleasedPredictor:
    """Reads a checkpoint of the training of Fast3D's authors: in float32, on the CPU, in evaluation mode.

    Args:
        path: of the file. It holds a dict with `model_state_dict`, as their training writes it, or only that state.
        sizes: sizes of the network; None: the published ones.

    Raises:
        UserError: transformers is missing; or the file is missing or damaged, or is of another network.
    """
    value = read_archive(path, "the checkpoint of the released predictor")
    state = value.get("model_state_dict", value) if isinstance(value, Mapping) else {}
    state = state if isinstance(state, Mapping) else {}
    state = {name: part for name, part in state.items() if isinstance(name, str) and isinstance(part, Tensor)}
    if state and all(name.startswith("module.") for name in state):  # of a training on several devices
        state = {name.removeprefix("module."): part for name, part in state.items()}
    state.pop(_OLD_BUFFER, None)
    with torch.device("meta"):
        network = ReleasedPredictor(sizes)
    own = network.state_dict()
    differences = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [name for name in own if name in state and own[name].shape != state[name].shape],
    }
    if any(differences.values()):
        told = [
            f"{len(names)} {kind} ({', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''})"
            for kind, names in differences.items()
            if names
        ]
        raise UserError(
            f"the weights in {path} are not those of the released predictor: {'; '.join(told)}. Give the checkpoint "
            "that the training of Fast3D's predictor wrote"
        )
    network.load_state_dict({name: part.float() for name, part in state.items()}, assign=True)
    _fill_positions(network.text_encoder)
    return network.eval().requires_grad_(False)


def _text_encoder(sizes: TextEncoderSizes) -> Any:
    try:
        from transformers import RobertaConfig, RobertaModel
    except ImportError as error:
        raise UserError(
            "the released predictor reads text with a RoBERTa of transformers: pip install 'fastsam3d[mllm]'"
        ) from error
    return RobertaModel(RobertaConfig(**asdict(sizes)))


def _fill_positions(encoder: Any) -> None:
    """Computes the buffers of a text encoder that are in no file, after it was built on the device meta."""
    embeddings = encoder.embeddings
    count = embeddings.position_embeddings.num_embeddings
    embeddings.position_ids = torch.arange(count)[None]
    embeddings.token_type_ids = torch.zeros(1, count, dtype=torch.int64)
