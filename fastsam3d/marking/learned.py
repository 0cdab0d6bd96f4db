"""Marks objects with the network of `network.py`, whose weights ship; `segmentation.segment` is its plain twin.

The network reads the picture at a small size, the marks in the order in which they were made, and its own answer to the
marks before. So a further click changes the mask and does not start again. Without a box, the network then reads the
part of the picture around the object once more, enlarged. GrabCut decides where the network is not certain, and finds
the outline again at a finer scale. With a box, the first mask is that of the plain twin. The network reads it as its
answer before the first click, and each click changes only the connected piece that it lies in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastsam3d.basics.reading.packed_weights import read_safetensors
from fastsam3d.errors import UserError
from fastsam3d.marking.backdrop import free_before_backdrop, standing_out
from fastsam3d.marking.network import MULTIPLE, MarkingNetwork
from fastsam3d.marking.prompt_maps import picture_maps, prompt_maps
from fastsam3d.marking.segmentation import (
    MINIMUM_SIDE,
    SEED_RADIUS,
    WORKING_SIDE,
    Prompt,
    Segmenter,
    cut,
    enlarged,
    marked_window,
    moved_prompt,
    opencv,
    refine,
    scale_prompt,
    seeds,
    segment,
    tidy,
)

WEIGHTS = Path(__file__).resolve().parents[1] / "mini" / "marker.safetensors"
"""The weights that ship."""
PLAIN_INSTEAD = "objects are marked by colours and edges alone, which is less exact."
SIDE = 192
"""Longest side, in pixels, of the picture that the network reads."""
ROOM = 0.35
"""Width of the surroundings of the object that the second look includes, as a share of the object's longer side."""
UNCERTAIN = 0.05
"""Below this probability a pixel is certainly not of the object; above one minus it, the pixel certainly is."""
NEARER = 0.8
"""There is a second look only if it needs less than this share of the picture's longer side."""


class LearnedSegmenter:
    """Masks from the marking network.

    Args:
        network: in evaluation mode.
        alone: answers even where the plain marker is better, to measure the network.
    """

    def __init__(self, network: MarkingNetwork, alone: bool = False) -> None:
        self._network = network
        self._alone = alone
        self._boxed: tuple[np.ndarray, Prompt, np.ndarray] | None = None

    def __call__(self, image: np.ndarray, prompt: Prompt) -> np.ndarray:
        """Makes the mask of a prompt; see `segmentation.segment`."""
        height, width = image.shape[:2]
        if min(height, width) < MINIMUM_SIDE:
            raise UserError(
                f"The picture is {width} x {height} pixels; at least {MINIMUM_SIDE} a side can be segmented."
            )
        if prompt.is_empty:
            return np.zeros((height, width), dtype=bool)
        cv2 = opencv()
        if not self._alone and prompt.box is not None:
            return self._after_box(cv2, image, prompt)
        if not self._alone and stands_free(cv2, image, prompt):
            return segment(image, prompt)  # there the network is not better, see docs/masks.md
        return self._in_window(cv2, image, prompt)

    def _after_box(self, cv2: Any, image: np.ndarray, prompt: Prompt) -> np.ndarray:
        """The plain answer to a box, and then the changes of each click."""
        if not prompt.clicks:
            return segment(image, prompt)  # the network is not better, see docs/masks.md
        earlier = replace(prompt, clicks=prompt.clicks[:-1])
        kept = self._boxed
        if kept is not None and kept[1] == earlier and np.array_equal(kept[0], image):
            before = kept[2]
        else:
            before = self._after_box(cv2, image, earlier)
        mask = changed_at(cv2, before, self._in_window(cv2, image, prompt, before), prompt.clicks[-1])
        # The next prompt often has one click more. Copies, because the caller may change its arrays in place.
        self._boxed = image.copy(), prompt, mask.copy()
        return mask

    def _in_window(self, cv2: Any, image: np.ndarray, prompt: Prompt, previous: np.ndarray | None = None) -> np.ndarray:
        height, width = image.shape[:2]
        left, top, right, bottom = marked_window(prompt, width, height)
        piece = np.ascontiguousarray(image[top:bottom, left:right])
        if previous is not None:
            previous = previous[top:bottom, left:right].astype(np.float32)
        result = np.zeros((height, width), dtype=bool)
        result[top:bottom, left:right] = self._whole(cv2, piece, moved_prompt(prompt, left, top), previous)
        return result

    def _whole(self, cv2: Any, image: np.ndarray, prompt: Prompt, previous: np.ndarray | None) -> np.ndarray:
        height, width = image.shape[:2]
        probability = self.probability(cv2, image, prompt, previous)
        if prompt.box is None:
            probability = self._looked_at_again(cv2, image, prompt, probability)
        factor = min(1.0, WORKING_SIDE / max(height, width))
        rows, columns = max(MINIMUM_SIDE, round(height * factor)), max(MINIMUM_SIDE, round(width * factor))
        small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        believed = cv2.resize(probability, (columns, rows), interpolation=cv2.INTER_AREA)
        scaled = scale_prompt(prompt, columns / width, rows / height)
        inside = enlarged(cv2, cut_by_colour(cv2, small, scaled, believed), width, height)
        return refine(cv2, image, inside, prompt) if factor < 1 else inside

    def probability(
        self, cv2: Any, image: np.ndarray, prompt: Prompt, previous: np.ndarray | None = None
    ) -> np.ndarray:
        """Computes the probability of the object at each pixel, float `[H, W]`, 0..1.

        Args:
            image: uint8 `[H, W, 3]`.
            prompt: not empty.
            previous: an answer to these marks, or to all but the last, `[H, W]`; without one, the marks are gone
                through in their order.
        """
        height, width = image.shape[:2]
        factor = SIDE / max(height, width)
        rows, columns = (max(MULTIPLE, round(side * factor / MULTIPLE) * MULTIPLE) for side in (height, width))
        shrinks = rows <= height and columns <= width
        small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        scaled = scale_prompt(prompt, columns / width, rows / height)
        pictures = picture_maps(torch.from_numpy(small).permute(2, 0, 1)[None])
        answer = torch.zeros(1, 1, rows, columns)
        steps = in_order(scaled)
        if previous is not None:
            answer, steps = torch.from_numpy(cv2.resize(previous, (columns, rows)))[None, None], [scaled]
        for step in steps:
            maps = prompt_maps(pictures, [step], answer)
            with torch.inference_mode():
                answer = self._network(maps).sigmoid()
        return np.asarray(cv2.resize(answer[0, 0].numpy(), (width, height), interpolation=cv2.INTER_LINEAR))

    def _looked_at_again(self, cv2: Any, image: np.ndarray, prompt: Prompt, probability: np.ndarray) -> np.ndarray:
        """The answer for the piece of the picture about the object, seen larger; as it is where that is all of it."""
        inside = probability > 0.5
        if not inside.any():
            return probability
        height, width = inside.shape
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        on = [(x, y) for x, y, there in prompt.clicks if there]
        low = min([columns[0], *(x for x, _ in on)]), min([rows[0], *(y for _, y in on)])
        high = max([columns[-1] + 1, *(x for x, _ in on)]), max([rows[-1] + 1, *(y for _, y in on)])
        room = ROOM * max(high[0] - low[0], high[1] - low[1], 16)
        left, top = max(0, int(low[0] - room)), max(0, int(low[1] - room))
        right, bottom = min(width, int(high[0] + room) + 1), min(height, int(high[1] + room) + 1)
        if max(right - left, bottom - top) > NEARER * max(width, height):
            return probability
        piece = np.ascontiguousarray(image[top:bottom, left:right])
        clicks = tuple(c for c in prompt.clicks if left <= c[0] < right and top <= c[1] < bottom)
        moved = moved_prompt(Prompt(clicks), left, top)
        result = np.zeros_like(probability)
        result[top:bottom, left:right] = self.probability(
            cv2, piece, moved, np.ascontiguousarray(probability[top:bottom, left:right])
        )
        return result


def stands_free(cv2: Any, image: np.ndarray, prompt: Prompt) -> bool:
    """Tells whether the first click is on something that stands free before a smooth backdrop.

    Args:
        image: uint8 `[H, W, 3]`.
        prompt: clicks without a box; the further ones do not count, so that they do not change who answers.
    """
    height, width = image.shape[:2]
    factor = min(1.0, WORKING_SIDE / max(height, width))
    rows, columns = max(MINIMUM_SIDE, round(height * factor)), max(MINIMUM_SIDE, round(width * factor))
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    first = scale_prompt(in_order(prompt)[0], columns / width, rows / height)
    if not free_before_backdrop(cv2, small):
        return False
    return standing_out(cv2, small, first.clicks, SEED_RADIUS) is not None


def changed_at(cv2: Any, before: np.ndarray, after: np.ndarray, click: tuple[float, float, bool]) -> np.ndarray:
    """Returns the mask before a click, with the connected piece of the change that the click lies in, bool `[H, W]`.

    A click on a pixel that does not change says nothing of what was wrong: then the whole change is taken.

    Args:
        before, after: bool `[H, W]`.
        click: (x, y, whether the object is there).
    """
    height, width = before.shape
    _, pieces = cv2.connectedComponents((before ^ after).astype(np.uint8))
    piece = pieces[min(int(click[1]), height - 1), min(int(click[0]), width - 1)]
    return after if piece == 0 else np.where(pieces == piece, after, before)


def cut_by_colour(cv2: Any, image: np.ndarray, prompt: Prompt, probability: np.ndarray) -> np.ndarray:
    """Makes a mask of an answer, bool `[H, W]`: GrabCut decides where the network is not certain.

    Args:
        image: uint8 `[H, W, 3]`.
        probability: `[H, W]`.
    """
    height, width = probability.shape
    # Without a box the rim of the picture stands for nothing: the network has seen what is there.
    on, off = seeds((height, width), prompt if prompt.box else replace(prompt, box=(0, 0, width, height)))
    labels = np.where(probability > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[probability < UNCERTAIN], labels[probability > 1 - UNCERTAIN] = cv2.GC_BGD, cv2.GC_FGD
    labels[off], labels[on] = cv2.GC_BGD, cv2.GC_FGD
    return tidy(cv2, cut(cv2, image, labels), on)


def in_order(prompt: Prompt) -> list[Prompt]:
    """Returns the prompts that a person has given up to this one: the box first, then one click more each time."""
    clicks, box = prompt.clicks, prompt.box
    first = [] if box is None else [Prompt((), box)]
    parts = [Prompt(clicks[: count + 1], box) for count in range(len(clicks))]
    return first + [part for part in parts if not part.is_empty]


def load_marker(path: str | Path, alone: bool = False) -> LearnedSegmenter:
    """Loads the marking network of a file that `train export` wrote.

    Args:
        alone: see `LearnedSegmenter`.

    Raises:
        UserError: the file cannot be read, or does not hold these weights.
    """
    network = MarkingNetwork(normalised=False)
    try:
        network.load_state_dict(read_safetensors(path))
    except Exception as error:  # whatever a damaged file makes the readers raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} does not hold weights of the marking network ({reason}).") from None
    return LearnedSegmenter(network.eval(), alone)


@dataclass(frozen=True)
class Marker:
    """The marker that is used, and a note on it.

    Attributes:
        segmenter: picture and prompt to a mask.
        note: what the user must know about it; "" if there is nothing.
    """

    segmenter: Segmenter
    note: str = ""


@lru_cache(maxsize=1)
def shipped_marker() -> Marker:
    """Returns the marker with the weights that ship, or the plain one with a note that says why."""
    if not WEIGHTS.is_file():
        return Marker(segment, f"the weights of the marker, {WEIGHTS}, are missing: {PLAIN_INSTEAD}")
    try:
        return Marker(load_marker(WEIGHTS))
    except UserError as error:
        return Marker(segment, f"{error} {PLAIN_INSTEAD}")
