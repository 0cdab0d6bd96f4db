"""Reconstructs the objects of one picture, and computes once what they share.

Shared are the picture's preprocessing and point map; every object's condition inputs hold the very same full-frame
tensor, so that an embedding of it can be shared as well. The first stage, whose latents have the same shape for all
objects, runs for several of them at once. On a CPU the objects of a small model run side by side on its cores; the
later stages are not batched, because their matrices are large enough as they are: a batch of six saves 4 % there.

Batches are formed in the order of the masks' contents, whatever order the masks come in and whichever of them are
finished already: the order of the objects, and an interruption, change no byte of any result. A batch differs from a
single run by rounding only, because matrix products of other sizes, or by other numbers of threads, add up in another
order; `batch=1` gives exactly the bytes of single runs.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import torch

from fastsam3d.basics.pixels import as_array, as_mask, as_seed
from fastsam3d.errors import OneAtATime, UserError
from fastsam3d.sam3d.pipeline.pipeline import Pipeline
from fastsam3d.sam3d.pipeline.preprocessing import SharedPicture, crop_box
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction, SampledStructure
from fastsam3d.sam3d.pipeline.timing import Progress
from fastsam3d.sam3d.scene.composition import Scene, SceneObject
from fastsam3d.sam3d.scene.side_by_side import side_by_side

logger = logging.getLogger(__name__)

CUDA_BATCH, CPU_BATCH = 4, 8
BUSY_TOKENS = 512
MEMORY_OF_A_BATCH = 6 * 2**30
"""Free bytes of a CUDA device below which objects go one by one."""

OnSceneStep = Callable[[str, str, int, int], None]
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
    progress: OnSceneStep | None = None,
) -> Scene:
    """Reconstructs every masked object of a picture; one that fails does not stop the others.

    Every object has noise of its own from the same seed, so its result does not depend on the other objects (see
    above for what batches change).

    Args:
        masks: bool `[H, W]` each.
        names: of the objects, all different; default `object_0`, `object_1`, ...
        batch: objects whose first stage runs together, at most; None: see `suitable_batch`. With 1 nothing runs side
            by side either.
        finished: results that are taken as they are, by name.
        on_object: called with each object as soon as it is there, finished ones excepted.
        progress: see `OnSceneStep`; in a batch the names of its objects are joined by ", ". Called from the threads
            of objects that run side by side, one call at a time.

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
    seed = as_seed(seed)
    size = suitable_batch(pipeline) if batch is None else batch
    picture = pipeline.share_picture(image, pointmap)
    done = {name: SceneObject(name, result) for name, result in (finished or {}).items() if name in labels}
    order = sorted(range(len(masks)), key=lambda index: (_content(masks[index]), labels[index]))
    # By the number of masks and not of objects that are missing, so that going on with a scene changes nothing.
    with side_by_side(pipeline, min(suitable_workers(pipeline, size), len(masks))) as workers:
        for batches in _rounds(order, size, workers.count):
            todo = [own for own in batches if any(labels[index] not in done for index in own)]
            sampling = [
                partial(_sample, picture, [masks[i] for i in own], [labels[i] for i in own], seed, progress)
                for own in todo
            ]
            with closing(workers.map(sampling)) as results:
                sampled = dict(zip(itertools.chain(*todo), itertools.chain(*results), strict=True))
            running = []
            for index in _longest_first(sampled):
                if labels[index] not in done:
                    options = {"seed": seed, "formats": formats, "sampled": sampled[index]}
                    report = None if progress is None else _named(progress, labels[index])
                    running.append(partial(_object, labels[index], (picture, masks[index]), options, report))
            # Closed whatever happens here, so that nothing runs on behind an interrupted scene.
            with closing(workers.map(running)) as items:
                for item in items:
                    done[item.name] = item
                    if on_object is not None:
                        on_object(item)
    return Scene(tuple(done[name] for name in labels))


def suitable_batch(pipeline: Pipeline) -> int:
    """Returns how many objects the first stage takes at once.

    On a CUDA device 4, where memory is free. On a CPU as many as bring the network to 512 tokens, at most 8: beyond
    that it is busy anyway. 1 under a memory budget, which is reckoned for one object.
    """
    if pipeline.memory is not None and pipeline.memory.plan.budget is not None:
        return 1
    if pipeline.device.type == "cuda":
        return CUDA_BATCH if torch.cuda.mem_get_info(pipeline.device)[0] >= MEMORY_OF_A_BATCH else 1
    return max(1, min(CPU_BATCH, BUSY_TOKENS // pipeline.config.ss_generator.latent_resolution**3))


def _sample(
    picture: Any,
    masks: list[Any],
    names: list[str],
    seed: int,
    progress: OnSceneStep | None,
    pipeline: Pipeline,
    reported: Callable[[Progress | None], Progress],
) -> Sequence[SampledStructure | None]:
    """Runs the first stage of a batch; gives None for objects that have to be run on their own."""
    if len(masks) == 1:
        return [None]
    usable = [index for index, mask in enumerate(masks) if _usable(picture, mask)]
    results: list[SampledStructure | None] = [None] * len(masks)
    if len(usable) < 2:
        return results
    report = None if progress is None else _named(progress, ", ".join(names[i] for i in usable))
    try:
        sampled = pipeline.sample_structures(picture, [masks[i] for i in usable], seed=seed, progress=reported(report))
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


def _usable(picture: SharedPicture, mask: Any) -> bool:
    """Tells whether a mask can be prepared, without preparing it, which takes longer."""
    try:
        crop_box(torch.tensor(as_mask(mask, *picture.pixels.shape[:2])))
    except Exception:
        return False  # said when the object is run
    return True


def suitable_workers(pipeline: Pipeline, batch: int) -> int:
    """Returns how many objects, or batches of them in the first stage, run side by side.

    On a CPU as many as PyTorch has threads, at most `batch`, which also bounds the memory. 1 where objects go one by
    one for want of memory or because one keeps the cores busy (see `suitable_batch`), and on a GPU, which runs what it
    is given in turn.
    """
    if pipeline.device.type != "cpu" or suitable_batch(pipeline) == 1:
        return 1
    return min(batch, torch.get_num_threads())


def _rounds(order: Sequence[int], size: int, workers: int) -> list[list[Sequence[int]]]:
    """Batches of at most `size` objects, as many in a round as there are workers; sizes are at most one apart."""
    rounds = -(-len(order) // (size * workers))
    count = min(rounds * workers, len(order))
    bounds = [len(order) * number // count for number in range(count + 1)]
    batches = [order[low:high] for low, high in itertools.pairwise(bounds)]
    return [batches[first : first + workers] for first in range(0, count, workers)]


def _longest_first(sampled: Mapping[int, SampledStructure | None]) -> list[int]:
    """Sorts works so that workers finish together: the more voxels, the earlier. Unknown ones come first."""
    return sorted(sampled, key=lambda i: -(2**62 if (s := sampled[i]) is None else len(s.structure.coords)))


def _object(
    name: str,
    inputs: tuple[Any, Any],
    options: Mapping[str, Any],
    report: Progress | None,
    pipeline: Pipeline,
    reported: Callable[[Progress | None], Progress],
) -> SceneObject:
    return _guarded(name, lambda: pipeline.run(*inputs, progress=reported(report), **options))


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
    array = np.ascontiguousarray(as_array(mask))
    return hashlib.sha256(repr((array.shape, array.dtype.str)).encode() + array.tobytes()).hexdigest()


def _named(progress: OnSceneStep, label: str) -> Callable[[str, int, int], None]:
    return lambda stage, done, total: progress(label, stage, done, total)
