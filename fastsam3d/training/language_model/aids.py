"""What makes so small a model learn to look objects up, within minutes.

Without any of it, a model of this size copies some identifier and never the right one. The three aids:

- weights at the start by which a token attends to tokens that resemble it, and copies what it finds;
- a loss that brings a projected feature near the words for what it shows;
- a loss on attention, along the way that an answer needs: of the words for objects to these objects; of the last word
  of a question to the words for objects that others are compared with, and then to the objects that are asked for; of
  each later word of an answer to the object that it is about. It fades out: the second part of a training run is the
  language loss alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.mini.model import GROUP, SceneLanguageModel, unit
from fastsam3d.mllm.scenes.vocabulary import CLASSES, COLOUR_NAMES, SIZE_NAMES
from fastsam3d.training.language_model.batches import MOST_ANCHORS, Batch
from fastsam3d.training.language_model.packing import Packed

DESCRIBING_LAYER, PASSING_LAYER, ASKING_LAYER = WATCHED = 1, 2, 3
"""Layers that the attention aid acts on, counted from 0; all in the lower half."""
PASSING, TELLING, ONE_HEAD = 0.6, 0.6, 0.25
"""Weights of two of its parts, and the attention that is enough there: one head of four. The others have to read what
else matters, such as the class and the direction that are asked for."""
SHARPNESS = 8.0  # of the cosines in the alignment
QUERY_GAIN, COPY_GAIN = 0.09, 0.5


@torch.no_grad()
def initialise(model: SceneLanguageModel, generator: torch.Generator) -> None:
    """Sets the weights that a run starts from."""
    decoder = model.language_model.model
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(decoder.embed_tokens.weight, std=0.1, generator=generator)
    model.token_size.fill_(0.1)
    depth = (2 * len(decoder.layers)) ** -0.5
    for layer in decoder.layers:
        attention = layer.self_attn
        nn.init.normal_(attention.q_proj.weight, std=QUERY_GAIN, generator=generator)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        nn.init.orthogonal_(attention.v_proj.weight, gain=COPY_GAIN, generator=generator)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)
        layer.mlp.down_proj.weight.mul_(depth)


def alignment_loss(model: SceneLanguageModel, batch: Batch) -> Tensor:
    """How far projected features are from the words for what they show.

    By shape: the class, and half as much the size and on which sides of the room; in pictures: the colour, and half as
    much the class.
    """

    def stacked(name: str) -> Tensor:
        return torch.stack([torch.from_numpy(getattr(room, name)) for room in batch.rooms]).flatten(0, 1)

    shape = model.geometry_projector(batch.geometry).flatten(0, -2)
    pictures = model.appearance_projector(batch.appearance).flatten(0, -2)
    kind, colour, places = stacked("classes"), stacked("colours"), stacked("places")
    classes = [c.name for c in CLASSES]
    parts = (
        (1.0, shape, classes, kind),
        (0.5, shape, SIZE_NAMES, stacked("sizes")),
        (0.5, shape, ("left", "right"), (places[:, 0] > 0).long()),
        (0.5, shape, ("front", "back"), (places[:, 1] > 0).long()),
        (1.0, pictures, COLOUR_NAMES, colour),
        (0.5, pictures, classes, kind),
    )
    losses = [weight * _cosine_loss(values, _words(model, names), right) for weight, values, names, right in parts]
    return torch.stack(losses).sum()


def _words(model: SceneLanguageModel, names: Sequence[str]) -> Tensor:
    return model.embed(torch.tensor([tokens.number_of(name) for name in names]))


def _cosine_loss(values: Tensor, words: Tensor, right: Tensor) -> Tensor:
    cosines = unit(values) @ unit(words).T / values.shape[-1]
    return functional.cross_entropy(SHARPNESS * cosines.float(), right)


def attention_loss(packed: Packed, batch: Batch, before: int) -> Tensor:
    """How far the watched attention is from where it should be: cross-entropies of four kinds.

    - The last row of a question gives each object that is asked for an even share. Not the sum alone: that could go to
      one of two objects whose places have to be compared.
    - The word for an object that others are compared with looks at that object, some layers earlier. So its place is
      known before the others are looked for.
    - Between the two, a part of the last row's attention goes to that word. Without this "the chair beside the table"
      is not learned: the place of the table never reaches the row that looks for the chair.
    - Each later row of an answer gives a part of its attention to the object that its next word is about. Without this
      captions are learned late: for thousands of steps only colour and class are right, size and place are guessed.

    An object's identifier does not count: it comes before the two features, and knows nothing of them.

    Args:
        packed: with the rows of `watched_rows`.
        batch: that was read.
        before: tokens before those of the objects.
    """
    asked = _mass(packed.looked_at[ASKING_LAYER][:, :, 0], batch, before)
    count = batch.targets.sum(-1, keepdim=True)
    shares = batch.targets / count.clamp(min=1)
    of_asked = -(shares * (asked * count + 1e-4).log()).sum(-1)[batch.targets.any(-1)].mean()
    described = _mass(packed.looked_at[DESCRIBING_LAYER][:, :, 1 : 1 + MOST_ANCHORS], batch, before)
    there = batch.anchors >= 0
    of_described = described.gather(-1, batch.anchors.clamp(min=0)[..., None])[..., 0]
    to_words = packed.words_looked_at[PASSING_LAYER][:, :, 0].float().gather(-1, batch.described)[there]
    terms = (of_described[there] + 1e-4).log() + PASSING * (to_words.clamp(max=ONE_HEAD) / ONE_HEAD + 1e-3).log()
    telling = _mass(packed.looked_at[ASKING_LAYER][:, :, 1 + MOST_ANCHORS :], batch, before)
    of_told = telling.gather(-1, batch.told.clamp(min=0)[..., None])[..., 0][batch.told >= 0]
    told = TELLING * (of_told.clamp(max=ONE_HEAD) / ONE_HEAD + 1e-3).log()
    # The first rooms have no anchors, and some questions have answers of one word.
    return of_asked - terms.sum() / max(len(terms), 1) - told.sum() / max(len(told), 1)


def watched_rows(batch: Batch) -> Tensor:
    """Rows whose attention is watched, (B, Q, 3 + A): the last of the question, the words for the anchors, and those
    words of the answer that are followed by another one."""
    answers = batch.asked[..., None] + 1 + torch.arange(batch.told.shape[-1])
    return torch.cat([batch.asked[..., None], batch.described, answers.clamp(max=batch.words.shape[-1] - 1)], dim=-1)


def _mass(attention: Tensor, batch: Batch, before: int) -> Tensor:
    """Attention (..., P) that goes to the two features of each object, (..., N)."""
    objects = batch.targets.shape[-1]
    of_tokens = attention[..., before : before + GROUP * objects].float().unflatten(-1, (objects, GROUP))
    return of_tokens[..., 1:].sum(-1)
