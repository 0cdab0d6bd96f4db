"""The predictor of attention maps that this package trains: some 200,000 parameters, and few operations.

It reads the embeddings of a prompt, which the language model computes anyway, and boxes. It works in two steps:

1. Every object is compared with the words (`matching`). That gives a first logit, at a cost that grows with the number
   of objects.
2. The objects with the largest first logits are the candidates. A decoder looks at them more closely, and its result is
   added to their logits. It follows GAP of Fast3D (ACM MM 2025): spatial attention among the objects, then attention to
   the words. Its cost grows with the square of its objects, so it gets the candidates alone.

It differs from GAP in three more points: words and objects are embeddings of the language model, and there is no text
encoder; inputs are normalised; and padding objects are masked.
Shapes: B prompts, N objects, M candidates, g tokens of an object, T words, D width of the embeddings, W width of the
predictor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsam3d.errors import UserError
from fastsam3d.mllm.predictor.batch import PredictorBatch
from fastsam3d.mllm.predictor.matching import WordMatching, of_length
from fastsam3d.mllm.predictor.spatial import PAIR_FEATURES, hiding, pair_features, spatial_bias

REQUIRED, OPTIONAL, UNUSED = "required", "optional", "unused"
MODEL_ATTRIBUTE = "attention_predictor"
"""Name under which a language model may carry the predictor that was trained for it."""
ABSENT_LOGIT = -1e4
"""Logit of an object that is not there: its share of a softmax is 0, and sums stay finite."""
_LONGEST_TEXT = 512
"""Number of positions. All later words share the last one."""


@dataclass(frozen=True)
class PredictorConfig:
    """Sizes of an `AttentionPredictor`.

    Attributes:
        embedding: D of the language model.
        group_size: g.
        width: W.
        heads: number of heads of every attention; it divides the width.
        text_layers, decoder_layers: numbers of layers.
        text_feed_forward, feed_forward: inner widths of the text layers and the decoder layers.
        matching: rank of the learned map of `WordMatching`.
        candidates: M, number of objects that the decoder reads; all of them where there are fewer.
        boxes: "required", "optional" (the predictor was trained with and without boxes) or "unused".
        rows: prompt rows whose attention it was trained to predict, such as "last"; for information only.

    Raises:
        ValueError: heads do not divide the width, or `boxes` is something else.
    """

    embedding: int = 128
    group_size: int = 3
    width: int = 64
    heads: int = 4
    text_layers: int = 1
    decoder_layers: int = 2
    text_feed_forward: int = 128
    feed_forward: int = 160
    matching: int = 32
    candidates: int = 48
    boxes: str = REQUIRED
    rows: str = "last"

    def __post_init__(self) -> None:
        if self.width % self.heads or self.boxes not in (REQUIRED, OPTIONAL, UNUSED):
            raise ValueError(f"{self}: heads divide the width, and boxes is {REQUIRED}, {OPTIONAL} or {UNUSED}")


class AttentionPredictor(nn.Module):
    """Predicts which share of the attention of a prompt each of its objects gets.

    Args:
        config: sizes.
    """

    _positions: Tensor

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.text_projection = nn.Linear(config.embedding, width)
        self.text_layers = nn.ModuleList(
            TextLayer(width, config.heads, config.text_feed_forward) for _ in range(config.text_layers)
        )
        self.text_norm = nn.LayerNorm(width)
        self.matching = WordMatching(config.embedding, config.group_size, config.matching)
        self.match_projection, self.topic_projection = nn.Linear(self.matching.size, width), nn.Linear(width, width)
        self.first_head = nn.Linear(width, 1)
        self.object_projection = nn.Linear(config.group_size * config.embedding, width)
        self.mixing = nn.Linear(width, width)
        if config.boxes != UNUSED:
            self.box_embedding = nn.Sequential(nn.Linear(6, width), nn.LayerNorm(width))
        self.layers = nn.ModuleList(
            DecoderLayer(width, config.heads, config.feed_forward, config.boxes != UNUSED)
            for _ in range(config.decoder_layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.register_buffer("_positions", torch.empty(0), persistent=False)
        self.fill_constants()

    def fill_constants(self) -> None:
        """Computes the table of positions, which is not stored. Needed again for a network built on the device meta."""
        device = self.text_projection.weight.device
        self._positions = _sinusoids(_LONGEST_TEXT, self.config.width).to(device)

    def forward(self, batch: PredictorBatch) -> Tensor:
        """Computes logits of the objects, (B, N) float32; `ABSENT_LOGIT` for objects that are not present.

        Their softmax gives the predicted shares of attention.

        Raises:
            UserError: the batch has other sizes than the predictor, or lacks boxes that it needs.
        """
        self._check(batch)
        dtype = self.text_projection.weight.dtype
        present, absent = batch.present, ~batch.present
        visual = batch.visual.masked_fill(absent[..., None, None], 0.0).to(dtype)
        text = batch.text.masked_fill(~batch.text_present[..., None], 0.0).to(dtype)
        words, topic = self._read(text, batch.text_present)

        matches = self.matching(visual, text, present, batch.text_present)
        matches = functional.gelu(self.match_projection(matches) + self.topic_projection(topic))
        logits = self.first_head(matches)[..., 0].float().masked_fill(absent, ABSENT_LOGIT)

        chosen = logits.detach().topk(min(self.config.candidates, logits.shape[1]), dim=1).indices
        there = present.gather(1, chosen)
        objects = of_length(_taken(visual, chosen), math.sqrt(self.config.embedding)).flatten(2)
        objects = self.object_projection(objects) + self.mixing(_taken(matches, chosen))
        boxes = None
        if batch.boxes is not None and self.config.boxes != UNUSED:
            boxes = _taken(_in_the_scene(batch.boxes.to(dtype), present), chosen)
        refined = self._decode(objects, boxes, words, topic, hiding(there), hiding(batch.text_present))
        logits = logits.scatter_add(1, chosen, refined.float())
        return logits.masked_fill(absent, ABSENT_LOGIT)

    def _read(self, text: Tensor, text_present: Tensor) -> tuple[Tensor, Tensor]:
        """Words with their context (B, T, W), and their mean (B, 1, W)."""
        places = (text_present.cumsum(1) - 1).clamp(0, _LONGEST_TEXT - 1)
        words = self.text_projection(of_length(text, math.sqrt(self.config.embedding))) + self._positions[places]
        hidden = hiding(text_present)
        for layer in self.text_layers:
            words = layer(words, hidden)
        words = self.text_norm(words)
        weights = text_present / text_present.sum(1, keepdim=True).clamp(min=1)
        return words, weights.to(words.dtype)[:, None] @ words

    def _decode(
        self,
        objects: Tensor,
        boxes: Tensor | None,
        words: Tensor,
        topic: Tensor,
        hidden_objects: Tensor,
        hidden_words: Tensor,
    ) -> Tensor:
        """What the decoder adds to the logits of the candidates, (B, M)."""
        box_vectors = None if boxes is None else self.box_embedding(boxes)
        pairs = None if boxes is None else pair_features(boxes[..., :3])
        for layer in self.layers:
            if box_vectors is not None:
                objects = objects + box_vectors
            objects = layer(objects, words, topic, pairs, hidden_objects, hidden_words)
        return self.head(objects)[..., 0]

    def _check(self, batch: PredictorBatch) -> None:
        found = (batch.visual.shape[-2], batch.visual.shape[-1])
        if found != (self.config.group_size, self.config.embedding):
            raise UserError(
                f"the prompt has {found[0]} tokens of width {found[1]} for each object, and the predictor was trained "
                f"for {self.config.group_size} of width {self.config.embedding}: give the predictor of this model"
            )
        if batch.boxes is None and self.config.boxes == REQUIRED:
            raise UserError(
                "the predictor needs the boxes of the objects, and none were given: pass objects=[{'boxes': boxes}, "
                "...] with one entry a sample, (N, 6) centre and extents in metres"
            )


def seeded_predictor(config: PredictorConfig, seed: int) -> AttentionPredictor:
    """Makes a new predictor whose weights depend only on the seed. The global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return AttentionPredictor(config)


class TextLayer(nn.Module):
    """One layer of a transformer over the words."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = _feed_forward(width, feed_forward)

    def forward(self, words: Tensor, hidden: Tensor) -> Tensor:
        """Vectors of the words after this layer, (B, T, W).

        Args:
            words: (B, T, W).
            hidden: (B, 1, 1, T) result of `hiding`.
        """
        words = words + self.to_out(_attended(self.to_qkv(self.norm1(words)).chunk(3, -1), self._heads, hidden))
        return words + self.feed_forward(self.norm2(words))


class DecoderLayer(nn.Module):
    """Attention among objects with their places, attention to the words, and a feed-forward part."""

    def __init__(self, width: int, heads: int, feed_forward: int, spatial: bool) -> None:
        super().__init__()
        self._heads = heads
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if spatial:
            self.to_conditions = nn.Linear(width, heads * (1 + PAIR_FEATURES))
        self.to_query, self.to_key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.to_out_words = nn.Linear(width, width)
        self.feed_forward = _feed_forward(width, feed_forward)

    def forward(
        self,
        objects: Tensor,
        words: Tensor,
        topic: Tensor,
        pairs: Tensor | None,
        hidden_objects: Tensor,
        hidden_words: Tensor,
    ) -> Tensor:
        """Vectors of the objects after this layer.

        Args:
            objects: (B, N, W).
            words: (B, T, W).
            topic: (B, 1, W) mean of the words.
            pairs: result of `pair_features`; None without boxes.
            hidden_objects, hidden_words: results of `hiding`.
        """
        own = self.norm1(objects)
        mask = hidden_objects
        if pairs is not None:
            conditions = self.to_conditions(own + topic).unflatten(-1, (self._heads, 1 + PAIR_FEATURES))
            mask = spatial_bias(conditions, pairs, hidden_objects)
        objects = objects + self.to_out(_attended(self.to_qkv(own).chunk(3, -1), self._heads, mask))
        query, (key, value) = self.to_query(self.norm2(objects)), self.to_key_value(words).chunk(2, -1)
        objects = objects + self.to_out_words(_attended((query, key, value), self._heads, hidden_words))
        return objects + self.feed_forward(self.norm3(objects))


def _feed_forward(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


def _attended(parts: tuple[Tensor, ...], heads: int, mask: Tensor) -> Tensor:
    """Attention of queries to keys and values, (B, ., W) each, with a mask that is added to its logits."""
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    mask = mask.to(query.dtype)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


def _taken(values: Tensor, chosen: Tensor) -> Tensor:
    """Rows (B, M, ...) of values (B, N, ...)."""
    places = chosen[(...,) + (None,) * (values.dim() - 2)]
    return values.gather(1, places.expand(-1, -1, *values.shape[2:]))


def _in_the_scene(boxes: Tensor, present: Tensor) -> Tensor:
    """Boxes, (B, N, 6), with centres relative to their mean centre, in metres; 0 where there is no object."""
    absent = ~present[..., None]
    boxes = boxes.masked_fill(absent, 0.0)
    mean = boxes[..., :3].sum(1, keepdim=True) / present.sum(1).clamp(min=1)[:, None, None]
    return (boxes - functional.pad(mean, (0, 3))).masked_fill(absent, 0.0)


def _sinusoids(count: int, width: int) -> Tensor:
    """Sines and cosines of positions (Vaswani et al. 2017, section 3.5), (count, width)."""
    rates = torch.exp(-math.log(10000.0) * torch.arange(0, width, 2) / width)
    angles = torch.arange(count)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
