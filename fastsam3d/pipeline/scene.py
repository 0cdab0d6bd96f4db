"""The objects of one picture, reconstructed with what they share computed once.

Shared are the picture's preprocessing and point map; every object's condition inputs hold the very same full-frame
tensor, so that an embedding of it can be shared as well. The first stage, whose latents have the same shape for all
objects, runs for several of them at once.

Batches are formed in the order of the masks' contents, whatever order the masks come in and whichever of them are
finished already: the order of the objects, and an interruption, change no byte of any result. A batch differs from a
single run by rounding only, because matrix products of other sizes add up in another order; `batch=1` gives exactly
the bytes of single runs.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fastsam3d.errors import OneAtATime, UserError
from fastsam3d.pipeline.pipeline import Pipeline
from fastsam3d.pipeline.reconstruction import Reconstruction, SampledStructure
from fastsam3d.pipeline.scene_composition import Scene, SceneObject

logger = logging.getLogger(__name__)

CUDA_BATCH, CPU_BATCH = 4, 8
BUSY_TOKENS = 512
MEMORY_OF_A_BATCH = 6 * 2**30
"""Free bytes of a CUDA device below which objects go one by one."""

SceneProgress = Callable[[str, str, int, int], None]
"""Called with (object names, stage, steps done, steps)."""


def reconstruct_scene(
    pipeline: Pipeline,
    image: Any,
    masks: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    pointmap: Any = None,
    formats: Sequence[str] = ("mesh",),
    batch: int | None = None,
    finished: Mapping[str, Reconstruction] | None = None,
    on_object: Callable[[SceneObject], None] | None = None,
    progress: SceneProgress | None = None,
) -> Scene:
    """Reconstructs every masked object of a picture; one that fails does not stop the others.

    Every object has noise of its own from the same seed, so its result does not depend on the other objects (see
    above for what batches change).

    Args:
        masks: bool `[H, W]` each.
        names: of the objects, all different; default `object_0`, `object_1`, ...
        batch: objects whose first stage runs together; None: see `suitable_batch`.
        finished: results that are taken as they are, by name.
        on_object: called with each object as soon as it is there, finished ones excepted.
        progress: see `SceneProgress`; in a batch the names of its objects are joined by ", ".

    Returns:
        The objects in the order of the masks.

    Raises:
        UserError: no mask, names that do not fit, or an unusable image or point map.
    """
    if len(masks) == 0:
        raise UserError("There is no mask, so there is nothing to reconstruct. Give at least one.")
    labels = [f"object_{index}" for index in range(len(masks))] if names is None else list(names)
    if len(labels) != len(masks) or len(set(labels)) != len(labels):
        raise UserError(f"{len(masks)} masks need as many different names, not {labels}.")
    if batch is not None and batch < 1:
        raise UserError(f"A batch of {batch} objects is not possible: give at least 1.")
    size = suitable_batch(pipeline) if batch is None else batch
    picture = pipeline.share_picture(image, pointmap)
    done = {name: SceneObject(name, result) for name, result in (finished or {}).items() if name in labels}
    order = sorted(range(len(masks)), key=lambda index: (_content(masks[index]), labels[index]))
    for first in range(0, len(order), size):
        group = order[first : first + size]
        if all(labels[index] in done for index in group):
            continue
        sampled = _sample(pipeline, picture, [masks[i] for i in group], [labels[i] for i in group], seed, progress)
        for index, structure in zip(group, sampled, strict=True):
            name = labels[index]
            if name in done:
                continue
            report = None if progress is None else _named(progress, name)
            options = {"seed": seed, "formats": formats, "progress": report, "sampled": structure}
            done[name] = _guarded(name, lambda i=index, o=options: pipeline.run(picture, masks[i], **o))  # type: ignore[misc]
            if on_object is not None:
                on_object(done[name])
    return Scene(tuple(done[name] for name in labels))


def suitable_batch(pipeline: Pipeline) -> int:
    """How many objects the first stage takes at once.

    On a CUDA device 4, where memory is free. On a CPU as many as bring the network to 512 tokens, at most 8: beyond
    that it is busy anyway. 1 under a memory budget, which is reckoned for one object.
    """
    if pipeline.memory is not None and pipeline.memory.plan.budget is not None:
        return 1
    if pipeline.device.type == "cuda":
        return CUDA_BATCH if torch.cuda.mem_get_info(pipeline.device)[0] >= MEMORY_OF_A_BATCH else 1
    return max(1, min(CPU_BATCH, BUSY_TOKENS // pipeline.config.ss_generator.latent_resolution**3))


def _sample(
    pipeline: Pipeline, picture: Any, masks: list[Any], names: list[str], seed: int, progress: SceneProgress | None
) -> Sequence[SampledStructure | None]:
    """The first stage of a group, None for objects that have to be run on their own."""
    if len(masks) == 1:
        return [None]
    usable = [index for index, mask in enumerate(masks) if _usable(pipeline, picture, mask)]
    results: list[SampledStructure | None] = [None] * len(masks)
    if len(usable) < 2:
        return results
    report = None if progress is None else _named(progress, ", ".join(names[i] for i in usable))
    try:
        sampled = pipeline.sample_structures(picture, [masks[i] for i in usable], seed=seed, progress=report)
    except OneAtATime as error:
        logger.info("objects run one by one: %s", error)
        return results
    except Exception as error:
        # One object of the batch, or its size, is at fault. Alone, each shows for itself whether it is its own.
        logger.warning("a batch of %d objects failed (%s); they run one by one", len(usable), error)
        return results
    for index, structure in zip(usable, sampled, strict=True):
        results[index] = structure
    return results


def _usable(pipeline: Pipeline, picture: Any, mask: Any) -> bool:
    try:
        pipeline.preprocess(picture, mask)
    except Exception:
        return False  # said when the object is run
    return True


def _guarded(name: str, run: Callable[[], Reconstruction]) -> SceneObject:
    try:
        return SceneObject(name, run())
    except UserError as error:
        logger.warning("%s: %s", name, error)
        return SceneObject(name, error=str(error))
    except Exception as error:
        logger.exception("%s failed", name)
        return SceneObject(name, error=f"{type(error).__name__}: {error}")


def _content(mask: Any) -> str:
    array = np.ascontiguousarray(np.asarray(mask))
    return hashlib.sha256(repr((array.shape, array.dtype.str)).encode() + array.tobytes()).hexdigest()


def _named(progress: SceneProgress, label: str) -> Callable[[str, int, int], None]:
    return lambda stage, done, total: progress(label, stage, done, total)
