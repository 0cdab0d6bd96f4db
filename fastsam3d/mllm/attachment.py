"""Attaches pruning to one language model.

Methods of this one instance are wrapped. `generate` and `forward` of the language model take the keywords `visual`
and `objects`. The decoder's `forward` tells a prompt from a step of generation. The `forward` of each layer gets a
shorter input.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.acceleration.presets import AccelerationConfig
from fastsam3d.acceleration.settings import AccelerationWarning
from fastsam3d.basics.runs import runs_of
from fastsam3d.mllm.calls import Given, by_name, first_given, one_of_each
from fastsam3d.mllm.counting.accounting import add_prefill
from fastsam3d.mllm.dropping import refusals
from fastsam3d.mllm.dropping.choices import Choice, kept_groups
from fastsam3d.mllm.dropping.decoding import Decoding, Shortened
from fastsam3d.mllm.dropping.plan import plan_of
from fastsam3d.mllm.dropping.prefill import Prefill
from fastsam3d.mllm.dropping.remasking import Remasking
from fastsam3d.mllm.host import Host
from fastsam3d.mllm.maps import CACHES, aggregated_maps
from fastsam3d.mllm.report import Clock, Report
from fastsam3d.mllm.spans import Layout, layout_of_prompts, live_for_counts, live_tokens
from fastsam3d.mllm.vocabulary import Prompts


class Attachment:
    """Everything that is attached to one language model, with the counts of its report.

    Args:
        host: knows where the model's parts are.
        config: settings of every technique.
        patches: records every change.
    """

    def __init__(self, host: Host, config: AccelerationConfig, patches: Patches) -> None:
        self._host, self._config, self._patches = host, config, patches
        self._layers = len(host.layers)
        self._plan = plan_of(config, self._layers)
        if self._plan is not None:
            self._plan.scorer.prepare(host.target)
        self._report = Report(config.name, config.enabled)
        self._block = self._given = Given()
        self._step: Prefill | Decoding | Remasking | None = None
        self._remembered: WeakKeyDictionary[Any, Shortened | Remasking] = WeakKeyDictionary()
        self._has_read = self._has_warned = False
        self._choices: Sequence[Choice] = ()  # of the last prompt
        self.lock = runs_of(host.target)
        """Held while the model runs: all threads share one state."""
        self.offers: dict[str, Any] = {"visual": self.visual, "kept": lambda: kept_groups(self._choices)}
        """Methods of the acceleration handle that only this family has, by name."""

    def attach(self) -> None:
        """Wraps the methods. After an exception some of them are wrapped; restoring the patches unwraps them."""
        self._patches.replace(self._host.language_model, "generate", self._generate)
        self._patches.replace(self._host.language_model, "forward", self._forward)
        self._patches.replace(self._host.decoder, "forward", self._run_decoder)
        if self._plan is not None:
            for index, layer in enumerate(self._host.layers):
                if index >= self._plan.cuts[0] - 1:
                    self._patches.replace(layer, "forward", partial(self._run_layer, index))

    @contextmanager
    def visual(self, visual: Any, objects: Sequence[Any] | None = None) -> Iterator[None]:
        """Says where the visual tokens are in all prompts that are read within the `with` block.

        Args:
            visual: one `VisualSpan` for all samples of a batch; a list with one entry a sample, each a span, a list of
                spans or an empty list; or a `Placeholder`.
            objects: one entry a sample, for scorers that read more about the objects, such as their boxes or scores.

        A call may also give both itself: `model.generate(..., visual=spans, objects=objects)`. The logits of a prompt
        have one row for each token that stays; the last row belongs to the last token. Hidden states of single layers
        have as many rows as the layer saw tokens.
        """
        # Without the lock: a call within the block may run in another thread, which a streamer reads from.
        before, self._block = self._block, Given(visual, objects)
        try:
            yield
        finally:
            self._block = before

    def report(self) -> Report:
        """Returns a copy of the report, with the counts since the start or the last reset."""
        return copy.deepcopy(self._report)

    def reset_report(self) -> None:
        """Sets all counts and seconds to zero."""
        self._report = Report(self._config.name, self._config.enabled)

    def add_report(self, other: Report) -> None:
        """Adds the counts of another attachment with the same settings."""
        self._report.add(other)

    def release(self) -> None:
        """Forgets the caches that prompts were read into. Called after the patches are restored."""
        self._remembered.clear()

    @contextmanager
    def _saying(self, visual: Any, objects: Any, samples: int | None = None) -> Iterator[None]:
        """Sets the spans and objects of a call: its own keywords, or those of an outer call or of the `with` block."""
        before = self._given
        outer = self._block if before.visual is None else before
        self._given = Given(
            outer.visual if visual is None else visual,
            outer.objects if objects is None else objects,
            samples or before.samples,
        )
        try:
            yield
        finally:
            self._given = before

    def _generate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def generate(*args: Any, visual: Any = None, objects: Any = None, **kwargs: Any) -> Any:
            given = by_name(original, args, kwargs)
            prompt = first_given(("inputs_embeds", "inputs", "input_ids"), given.get)
            with self.lock, self._saying(visual, objects, None if prompt is None else len(prompt)):
                if self._given.visual is not None and self._plan is not None:
                    refusals.refuse_generation(given, getattr(self._host.language_model, "generation_config", None))
                result = original(*args, **kwargs)
                self._warn_if_unread()
                return result

        return generate

    def _warn_if_unread(self) -> None:
        """Warns once about a generation whose prompt did not pass what is attached."""
        if not self._has_read and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{self._config.name}: no prompt was seen in a generation, and nothing is saved: the decoder is "
                "wrapped, or was replaced later. Accelerate the model with its own decoder, and "
                "again after it is replaced.",
                AccelerationWarning,
                stacklevel=4,
            )

    def _forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def forward(*args: Any, visual: Any = None, objects: Any = None, **kwargs: Any) -> Any:
            with self.lock, self._saying(visual, objects):
                drops = self._given.visual is not None and self._plan is not None and not self._plan.mask
                if drops and by_name(original, args, kwargs).get("labels") is not None:
                    refusals.refuse_labels()
                return original(*args, **kwargs)

        return forward

    def _run_decoder(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            given = by_name(original, args, kwargs)
            self._has_read, cache = True, first_given(CACHES, given.get)
            tokens = given["input_ids"] if given.get("inputs_embeds") is None else given["inputs_embeds"]
            with self.lock, self._saying(None, None):
                if cache is not None and int(cache.get_seq_length()) > 0:
                    return self._continue(original, given, cache, tokens)
                return self._read(original, given, cache, tokens)

        return forward

    def _read(self, original: Callable[..., Any], given: dict[str, Any], cache: Any, tokens: Tensor) -> Any:
        """Reads a batch of prompts."""
        said, clock = self._given, Clock(tokens.device)
        mask, (rows, columns) = given.get("attention_mask"), tokens.shape[:2]
        copies = max(rows // (said.samples or rows), 1)
        prunes = said.visual is not None and self._plan is not None
        live = (live_tokens if prunes else live_for_counts)(mask, rows, columns, tokens.device)
        layout, run = None, None
        if cache is not None:
            self._remembered.pop(cache, None)  # an emptied cache may be filled again
        if said.visual is not None:
            ids = one_of_each(given.get("input_ids"), copies)
            of_samples = layout_of_prompts(said.visual, live[::copies], ids)
            layout = of_samples.repeat(copies)
        with clock:
            if prunes and layout is not None and layout.present.shape[1]:
                refusals.refuse_cache(cache)
                refusals.refuse_checkpointing(self._host.decoder)
                refusals.refuse_visual_end(of_samples)
                run = self._prefill(original, given, layout, copies, said)
            try:
                self._step = run
                output = original(**given)
            finally:
                self._step = None
        self._choices = () if run is None else run.choices
        if run is not None and run.cache is not None:
            if isinstance(run, Remasking):
                self._remembered[run.cache] = run
            elif run.kept:
                self._remembered[run.cache] = Shortened(run.kept, columns)
        filled = first_given(CACHES, lambda name: getattr(output, name, None))
        add_prefill(self._report, self._host.sizes, live, copies, layout, run, filled)
        self._report.prefill_seconds += clock.seconds
        return output

    def _prefill(
        self, original: Callable[..., Any], given: dict[str, Any], layout: Layout, copies: int, said: Given
    ) -> Prefill | Remasking:
        assert self._plan is not None
        samples = len(layout.live) // copies
        first, one_each = self._report.samples, layout.take(slice(None, None, copies))
        rows, full_map, clock = self._plan.scorer.full_run, None, Clock(layout.live.device)
        with clock:
            if rows is not None:
                full_map = aggregated_maps(self._host, one_each, [rows], original, given, copies)[0]
        ids, embeds = (one_of_each(given.get(name), copies) for name in ("input_ids", "inputs_embeds"))
        prompts = Prompts(one_each, ids, embeds, said.objects, range(first, first + samples))
        if self._plan.scorer.every_step:
            return Remasking(self._host, self._plan, layout, copies, prompts)
        run = Prefill(self._host, self._plan, layout, copies, prompts, full_map)
        run.clock.seconds += clock.seconds
        return run

    def _continue(self, original: Callable[..., Any], given: dict[str, Any], cache: Any, tokens: Tensor) -> Any:
        """Runs a step of generation on a filled cache."""
        remembered, (rows, columns) = self._remembered.get(cache), tokens.shape[:2]
        if remembered is None:
            if self._plan is not None:
                refusals.refuse_foreign_cache(cache, self._layers)
                if columns > 1 and self._given.visual is not None:
                    refusals.refuse_continuation(rows, columns)
        elif columns > 1:
            refusals.refuse_continuation(rows, columns)
        elif given.get("position_ids") is None and isinstance(remembered, Shortened):
            # The decoder would count from the length of layer 0, which may be a shortened one.
            position = remembered.length + remembered.generated(cache)
            given["position_ids"] = torch.tensor([[position]], device=tokens.device)
        clock = Clock(tokens.device)
        try:
            with clock:
                if isinstance(remembered, Remasking):
                    self._step = remembered.next_step(rows)
                    self._report.remasked_steps += 1
                elif remembered is not None:
                    self._step = Decoding(remembered, cache, rows, self._host.additive_masks)
                return original(**given)
        finally:
            self._step = None
            self._report.decode_steps += 1
            self._report.decode_seconds += clock.seconds

    def _run_layer(self, index: int, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._step is not None:
                cache = first_given(CACHES, kwargs.get)
                hidden_states, kwargs = self._step.enter(index, hidden_states, kwargs, cache)
            return original(hidden_states, *args, **kwargs)

        return forward
