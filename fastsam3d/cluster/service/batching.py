"""Runs the first stages of different requests as one batch.

The first stage has latents of one shape for every object, so objects of different pictures run in one batch, as those
of one scene do (`fastsam3d.sam3d.scene.reconstruct`). A batch differs from single runs by rounding only. What cannot be
batched runs alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastsam3d.jobs.listener import SILENT

if TYPE_CHECKING:
    from fastsam3d.jobs.request import Request
    from fastsam3d.jobs.running import Accelerated

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """Inputs of an object whose first stage is to run: uint8 `[H, W, 3]`, bool `[H, W]`, fp32 `[H, W, 3]` or None."""

    pixels: Any
    mask: Any
    pointmap: Any
    seed: int


def wanted_of(request: Request) -> Wanted:
    """Reads what the first stage of a job of one object needs.

    Raises:
        UserError: see `fastsam3d.jobs.objects.read_object`.
    """
    from fastsam3d.jobs.objects import read_object

    inputs = read_object(request, SILENT)
    return Wanted(inputs.picture.pixels, inputs.mask.pixels, inputs.pointmap, request.seed)


def sample_together(pipeline: Any, wanted: Sequence[Wanted]) -> list[Any]:
    """Samples the first stages together, for `Pipeline.run(sampled=)`; None for each if they must run alone."""
    if len(wanted) < 2:
        return [None] * len(wanted)
    try:
        pictures = [pipeline.share_picture(own.pixels, own.pointmap) for own in wanted]
        seeds = [own.seed for own in wanted]
        return list(pipeline.sample_structures(pictures, [own.mask for own in wanted], seed=seeds))
    except Exception as error:  # one of them is at fault, or techniques take one at a time: each shows for itself
        logger.info("the first stages of %d requests run one by one: %s", len(wanted), error)
        return [None] * len(wanted)


class _WithSampled:
    """A pipeline whose first stage has run already."""

    def __init__(self, pipeline: Any, sampled: Any) -> None:
        self._pipeline, self._sampled = pipeline, sampled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def run(self, *inputs: Any, **options: Any) -> Any:
        """See `fastsam3d.sam3d.pipeline.pipeline.Pipeline.run`."""
        return self._pipeline.run(*inputs, sampled=self._sampled, **options)


def with_sampled(running: Accelerated, sampled: Any) -> Accelerated:
    """Returns the pipeline of a job whose first stage has run already; without such a stage, the pipeline itself."""
    if sampled is None:
        return running
    pipeline: Any = _WithSampled(running.pipeline, sampled)
    return replace(running, pipeline=pipeline)
