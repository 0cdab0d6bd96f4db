"""Measures how well clicks and boxes find objects, on procedural scenes and on photographs whose masks are known.

    python -m fastsam3d marking-quality [scenes=16] [first=0] [marker=plain]
    python -m fastsam3d marking-quality photographs=FOLDER

The person is simulated as usual in interactive segmentation. The first click is in the middle of the object. Each
further click is in the middle of the largest error; it adds if the error is on the object, and takes away otherwise.
The box is the object's own, with room of three pixels on each side in a picture of 256 pixels. Mean and median IoU with
the true mask, the share above 0.8, and seconds are printed. `docs/masks.md` has the figures.

The scenes have smooth backdrops, which `backdrop.py` of the plain marker needs. The default set, 40 objects, has other
scenes than those with which the plain marker was developed. There is one exception: for its last change, of further
clicks, masks of seven of these scenes were seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fastsam3d.marking.segmentation import Prompt, Segmenter

CLICKS = 5
PROMPTS = ("one click", "two clicks", "three clicks", "four clicks", "five clicks", "box")
SIDE = 256
SMALLEST = 100
"""Smallest number of visible pixels of an object that is measured."""
FIRST_SEED = 9100
"""First seed of the scenes, after those of the held-out objects. The sixteen seeds before it served for development."""


def marked_scenes(first: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Renders scenes of one to four objects: (picture uint8 `[H, W, 3]`, mask bool `[H, W]`) of every object."""
    from fastsam3d.procedural import HELD_OUT_SEED
    from fastsam3d.procedural.scene_render import render_scene
    from fastsam3d.procedural.scenes import make_scene

    for index in range(first, first + count):
        picture = render_scene(make_scene(HELD_OUT_SEED + FIRST_SEED + index, 1 + index % 4), SIDE)
        for mask in picture.masks:
            if mask.sum() >= SMALLEST:
                yield picture.image, mask


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the IoU of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def largest_error(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """Finds the largest connected piece in which a mask is wrong.

    Args:
        mask, truth: bool `[H, W]`.

    Returns:
        (the piece, bool `[H, W]`; whether the object is there), or None if the mask has no error.
    """
    import cv2

    best: tuple[int, np.ndarray, bool] | None = None
    for wrong, inside in ((truth & ~mask, True), (mask & ~truth, False)):
        count, pieces, sizes, _ = cv2.connectedComponentsWithStats(wrong.astype(np.uint8))
        if count > 1:
            largest = 1 + int(sizes[1:, cv2.CC_STAT_AREA].argmax())
            area = int(sizes[largest, cv2.CC_STAT_AREA])
            if best is None or area > best[0]:
                best = area, pieces == largest, inside
    return None if best is None else best[1:]


def next_click(mask: np.ndarray, truth: np.ndarray) -> tuple[float, float, bool] | None:
    """Finds the middle of the largest error: (x, y, whether the object is there); None where there is none."""
    import cv2

    found = largest_error(mask, truth)
    if found is None:
        return None
    piece, inside = found
    depth = cv2.distanceTransform(np.pad(piece.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(column) + 0.5, float(row) + 0.5, inside


def measure(segmenter: Segmenter, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
    """Measures the IoU `[objects, 6]` in the order of `PROMPTS`, and the mean seconds of an answer.

    Args:
        pairs: (picture uint8 `[H, W, 3]`, true mask bool `[H, W]`) of every object.
    """
    rows: list[list[float]] = []
    seconds: list[float] = []

    def ask(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        start = time.perf_counter()
        mask = segmenter(image, prompt)
        seconds.append(time.perf_counter() - start)
        return mask

    for image, truth in pairs:
        mask, clicks, row = np.zeros_like(truth), [], []
        for _ in range(CLICKS):
            click = next_click(mask, truth)
            if click is not None:
                clicks.append(click)
                mask = ask(image, Prompt(tuple(clicks)))
            row.append(overlap(mask, truth))
        rows.append([*row, overlap(ask(image, Prompt(box=box_around(truth))), truth)])
    return np.array(rows), float(np.mean(seconds))


def box_around(truth: np.ndarray) -> tuple[float, float, float, float]:
    """The box of an object, three pixels wider on each side in a picture of 256: (left, top, right, bottom)."""
    rows, columns = np.nonzero(truth)
    room = 3 * max(1.0, max(truth.shape) / SIDE)
    left, top, right, bottom = columns.min() - room, rows.min() - room, columns.max() + 1 + room, rows.max() + 1 + room
    return float(left), float(top), float(right), float(bottom)


def measure_after_box(segmenter: Segmenter, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Measures the IoU of a box alone, and with a click in the largest error of its mask: `[objects, 2]`.

    Args:
        pairs: see `measure`.
    """
    rows: list[tuple[float, float]] = []
    for image, truth in pairs:
        box = box_around(truth)
        mask = segmenter(image, Prompt(box=box))
        before, click = overlap(mask, truth), next_click(mask, truth)
        rows.append((before, before if click is None else overlap(segmenter(image, Prompt((click,), box)), truth)))
    return np.array(rows)


def after_box_line(found: np.ndarray) -> str:
    """Formats what `measure_after_box` returns as a line of text."""
    before, after = found.mean(axis=0)
    return (
        f"box and click mean IoU {before:.3f} before and {after:.3f} after the click, smaller: {setbacks(found):.0%}\n"
    )


def measure_proposals(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, int]:
    """Measures proposals without any mark: the IoU `[objects]` of each object's best one, and how many there were.

    Args:
        pairs: see `measure`; objects of one picture follow one another and share the array of the picture.
    """
    from fastsam3d.marking.proposals import propose

    best: list[float] = []
    last, found, count = None, [], 0
    for image, truth in pairs:
        if image is not last:
            last, found = image, propose(image)
            count += len(found)
        best.append(max((overlap(mask, truth) for mask in found), default=0.0))
    return np.array(best), count


def proposal_line(best: np.ndarray, count: int) -> str:
    """Formats what `measure_proposals` returns as a line of text."""
    return f"{'--all':<13} mean IoU {best.mean():.3f}, above 0.5: {(best > 0.5).mean():.0%}, {count} proposals\n"


def setbacks(found: np.ndarray, tolerance: float = 0.05) -> float:
    """Computes the share of the further clicks after which the IoU is smaller by more than a tolerance.

    Args:
        found: IoU `[objects, N]`, of which the first `CLICKS` columns are of one click more each.
    """
    clicks = found[:, :CLICKS]
    return float((clicks[:, 1:] < clicks[:, :-1] - tolerance).mean())


def table(found: np.ndarray) -> str:
    """Formats IoU `[objects, 6]` as text, one line for each kind of prompt; see `measure`."""
    lines = []
    for name, column in zip(PROMPTS, found.T, strict=True):
        text = f"mean IoU {column.mean():.3f}, median {np.median(column):.3f}, above 0.8: {(column > 0.8).mean():.0%}"
        lines.append(f"{name:<13} {text}\n")
    return "".join(lines)


def object_rows(names: Sequence[str], found: np.ndarray) -> str:
    """Formats the IoU of every object as text, one line each, in the order of `PROMPTS`."""
    width = max(map(len, names))
    head = f"\n{'':<{width}}  {'  '.join(PROMPTS)}\n"
    cells = ["  ".join(f"{value:.2f}".rjust(len(p)) for value, p in zip(row, PROMPTS, strict=True)) for row in found]
    return head + "".join(f"{name:<{width}}  {text}\n" for name, text in zip(names, cells, strict=True))
