"""Chat-Scene (Huang et al., NeurIPS 2024): Vicuna with names and features of objects in its prompt, and its answers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsam3d.errors import UserError
from fastsam3d.mllm.chat_scene.checkpoint import ADAPTED
from fastsam3d.mllm.chat_scene.features import Scene
from fastsam3d.mllm.chat_scene.generation import generation_arguments
from fastsam3d.mllm.chat_scene.prompts import (
    HEAD,
    TAIL,
    TOKENS_PER_OBJECT,
    check_order,
    object_order,
    question_text,
    with_objects,
    with_slots,
)
from fastsam3d.mllm.chat_scene.tokens import ObjectTokenizer
from fastsam3d.mllm.predictor.stored_maps import model_identity
from fastsam3d.mllm.spans import VisualSpan

PLACE, LEAVE_OUT = "place", "leave_out"
"""What padding objects get: three tokens with features of zeros, as in training (`PLACE`), or none (`LEAVE_OUT`)."""


@dataclass(frozen=True)
class ChatInputs:
    """A batch of prompts, padded on the left.

    Attributes:
        inputs_embeds: (B, S, D).
        attention_mask: (B, S), 0 at padding.
        visual: where the objects of each sample are.
        tail_tokens: tokens between the objects and the question.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    visual: list[VisualSpan]
    tail_tokens: int


class ChatScene(nn.Module):
    """A language model that is asked about a scene of numbered objects.

    `fastsam3d.accelerate` takes this model, and accelerates the language model inside.

    Args:
        language_model: a causal Llama of transformers. Its last embeddings are the names of objects.
        tokenizer: its tokeniser.
        projections: of the 3D and the 2D features to the width of the language model.
        missing_objects: `PLACE` or `LEAVE_OUT`. The published weights were trained and scored with `PLACE`.

    Raises:
        UserError: missing_objects is something else.
    """

    def __init__(
        self,
        language_model: Any,
        tokenizer: ObjectTokenizer,
        projections: tuple[nn.Module, nn.Module],
        missing_objects: str = PLACE,
    ) -> None:
        super().__init__()
        if missing_objects not in (PLACE, LEAVE_OUT):
            raise UserError(f"missing_objects is {missing_objects!r}, and has to be {PLACE!r} or {LEAVE_OUT!r}.")
        self.language_model = language_model
        self.object_proj, self.object_img_proj = projections
        self.tokenizer, self.missing_objects = tokenizer, missing_objects
        self._head = [tokenizer.begin, *tokenizer.ids(HEAD)]
        self._tail = tokenizer.ids(TAIL)

    @property
    def config(self) -> Any:
        """The configuration of the language model."""
        return self.language_model.config

    @property
    def objects(self) -> int:
        """Number of objects that the model has names for."""
        return self.tokenizer.objects

    def identity(self) -> str:
        """Identifies the weights, for stored maps. The result is the same in float32 and bfloat16.

        Matrices that LoRA was merged into do not count, because machines may round them differently.
        """
        return model_identity(self, tuple(f".{name}.weight" for name in ADAPTED), torch.bfloat16)

    def get_base_model(self) -> Any:
        """The language model, under the name that wrappers of PEFT use. An acceleration attaches to it."""
        return self.language_model

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """`generate` of the language model."""
        return self.language_model.generate(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """`forward` of the language model."""
        return self.language_model(*args, **kwargs)

    def answer(self, scene: Scene, prompt: str, **generation: Any) -> str:
        """Answers one question.

        Args:
            scene: from `FeatureFiles.scene`.
            prompt: the whole question, as annotation files hold it.
            generation: changes to `generation.GENERATION`, for instance `max_new_tokens=10`.

        Raises:
            UserError: the scene or the question does not fit the model.
        """
        return self.answer_all([scene], [prompt], **generation)[0]

    @torch.no_grad()
    def answer_all(
        self,
        scenes: Sequence[Scene],
        prompts: Sequence[str],
        *,
        orders: Sequence[Sequence[int]] | None = None,
        objects: Sequence[Any] | None = None,
        **generation: Any,
    ) -> list[str]:
        """Answers a batch of questions.

        Args:
            scenes, prompts: one of each for every question.
            orders: for every question, the number of the object at each slot; None: objects are in their own order.
            objects: one entry for every question, for scorers of an acceleration, such as the boxes of its groups.
            generation: as for `answer`.

        Raises:
            UserError: a scene, a question or an order does not fit the model.
        """
        every = self._orders(orders, len(prompts))
        inputs = self.inputs(scenes, prompts, orders=every)
        given: dict[str, Any] = {"inputs_embeds": inputs.inputs_embeds, "attention_mask": inputs.attention_mask}
        if _takes_spans(self.language_model.generate):
            given |= {"visual": inputs.visual, "objects": objects}
        generated = self.language_model.generate(**given, **generation_arguments(generation))
        texts = [self.tokenizer.text(row) for row in generated.tolist()]
        return [with_objects(text, order) for text, order in zip(texts, every, strict=True)]

    def inputs(
        self,
        scenes: Sequence[Scene],
        prompts: Sequence[str],
        *,
        answers: Sequence[str] | None = None,
        orders: Sequence[Sequence[int]] | None = None,
    ) -> ChatInputs:
        """Builds a batch of prompts as the language model reads them, for instance for attention maps.

        Args:
            scenes, prompts, orders: as for `answer_all`.
            answers: texts that follow the prompts, and may name objects; None: no texts.

        Raises:
            UserError: as for `answer_all`.
        """
        if not len(scenes) == len(prompts) == len(answers or prompts) or not prompts:
            raise UserError(
                f"{len(scenes)} scenes, {len(prompts)} prompts and {len(answers or prompts)} answers: give one of each "
                "for every question."
            )
        every = self._orders(orders, len(prompts))
        texts = [
            with_slots(question_text(prompt, None if answers is None else answers[row]), every[row])
            for row, prompt in enumerate(prompts)
        ]
        built = [self._prompt(*one) for one in zip(scenes, texts, every, strict=True)]
        longest = max(len(embeds) for embeds, _ in built)
        batch = [functional.pad(embeds, (0, 0, longest - len(embeds), 0)) for embeds, _ in built]
        mask = torch.zeros(len(built), longest, dtype=torch.long)
        for row, (embeds, _) in enumerate(built):
            mask[row, longest - len(embeds) :] = 1
        stacked = torch.stack(batch)
        return ChatInputs(stacked, mask.to(stacked.device), [span for _, span in built], len(self._tail))

    def groups(self, scene: Scene, order: Sequence[int] | None = None) -> list[int]:
        """Number of the object in each group of a prompt, for callers that give one value for each group.

        Args:
            scene: of the prompt.
            order: number of the object at each slot; None: objects are in their own order.

        Raises:
            UserError: the scene or the order does not fit the model.
        """
        order = object_order(self.objects) if order is None else check_order(order, self.objects)
        there = self._present(scene, order)
        return [number for number, is_there in zip(order, there, strict=True) if is_there or self.places_missing]

    @property
    def places_missing(self) -> bool:
        """Whether padding objects have tokens."""
        return self.missing_objects == PLACE

    def _orders(self, orders: Sequence[Sequence[int]] | None, questions: int) -> list[list[int]]:
        if orders is None:
            return [object_order(self.objects)] * questions
        if len(orders) != questions:
            raise UserError(f"{len(orders)} orders of objects for {questions} questions: give one for every question.")
        return [check_order(order, self.objects) for order in orders]

    def _prompt(self, scene: Scene, question: str, order: list[int]) -> tuple[Tensor, VisualSpan]:
        """Embeddings of a prompt, (S, D), and where its objects are."""
        slots, present = list(range(self.objects)), self._present(scene, order)
        if not self.places_missing:
            slots = [slot for slot in slots if present[slot]]
        embed = self.language_model.get_input_embeddings()
        device = embed.weight.device
        names = embed(torch.tensor([self.tokenizer.first + slot for slot in slots], dtype=torch.long, device=device))
        rows = [order[slot] for slot in slots]
        seen = [
            self._projected(self.object_proj, scene.features_3d, rows, scene.name, names),
            self._projected(self.object_img_proj, scene.features_2d, rows, scene.name, names),
        ]
        visual = torch.stack([names, *seen], dim=1).flatten(0, 1)
        head, tail, asked = (
            embed(torch.tensor(ids, dtype=torch.long, device=device))
            for ids in (self._head, self._tail, self.tokenizer.ids(question))
        )
        mask = [present[slot] for slot in slots]
        span = VisualSpan(len(head), len(slots), TOKENS_PER_OBJECT, mask)
        return torch.cat([head, visual, tail, asked]), span

    def _present(self, scene: Scene, order: list[int]) -> list[bool]:
        if len(scene) > self.objects:
            raise UserError(
                f"{scene.name} has {len(scene)} objects, and the model has names for {self.objects}: take the first of "
                f"them, scene.take({self.objects})."
            )
        return [number < len(scene) and bool(scene.present[number]) for number in order]

    def _projected(self, projection: nn.Module, features: Tensor, rows: list[int], scene: str, like: Tensor) -> Tensor:
        """Features of some objects in the width of the language model; an object that is not there has zeros."""
        weight = projection[0].weight  # type: ignore[index]
        if features.shape[1] != weight.shape[1]:
            raise UserError(
                f"{scene} has features of {features.shape[1]} numbers, and the checkpoint takes {weight.shape[1]}: "
                "give the feature files that belong to it, those in 3D first."
            )
        filled = functional.pad(features, (0, 0, 0, self.objects - len(features)))[rows]
        normalised = functional.normalize(filled.to(weight.device, weight.dtype), dim=-1)
        return projection(normalised).to(like)


def _takes_spans(method: Any) -> bool:
    """Whether `generate` is that of an accelerated model: a plain one refuses keywords that it does not know."""
    while method is not None:
        if "visual" in inspect.signature(method, follow_wrapped=False).parameters:
            return True
        method = getattr(method, "__wrapped__", None)
    return False
