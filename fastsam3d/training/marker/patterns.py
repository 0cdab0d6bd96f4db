"""Grey patterns and palettes for training pictures: noise of several spectra, stripes, spots, leaves, bricks, fur.

Patterns are made once, `[PATTERNS, SIDE, SIDE]`. A texture is then a random piece of one of them, at a random scale,
whose grey values go through a random palette. So a texture costs a fraction of a millisecond, and hardly two are alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE = 384
"""Pixels of a pattern."""
PATTERNS = 160


def pattern_bank(cv2: Any, seed: int) -> np.ndarray:
    """Makes the patterns, uint8 `[PATTERNS, SIDE, SIDE]`.

    Args:
        seed: the same seed makes the same patterns.
    """
    rng = np.random.default_rng([41, seed])
    kinds = (_noise, _noise, _noise, _fur, _spots, _spots, _stripes, _checks, _leaves, _leaves, _bricks, _cells)
    patterns = [_stretched(kinds[index % len(kinds)](cv2, rng)) for index in range(PATTERNS)]
    return np.stack(patterns)


def _stretched(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (1, 99))
    return (np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def _noise(cv2: Any, rng: np.random.Generator, exponent: float | None = None) -> np.ndarray:
    """Noise whose amplitude falls with a power of the frequency; natural pictures have a power of about one."""
    exponent = rng.uniform(0.6, 2.2) if exponent is None else exponent
    y, x = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    stretch = np.exp(rng.normal(0, 0.35))
    frequency = np.sqrt((y * stretch) ** 2 + (x / stretch) ** 2)
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) * frequency**-exponent
    spectrum[0, 0] = 0.0
    return np.fft.irfft2(spectrum, s=(SIDE, SIDE))


def _fur(cv2: Any, rng: np.random.Generator) -> np.ndarray:
    """Short strokes along a direction that changes slowly, over soft noise."""
    noise = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
    length = int(rng.integers(7, 25))
    layers = []
    for angle in np.linspace(0, np.pi, 4, endpoint=False) + rng.uniform(0, np.pi):
        kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
        tip = np.array([np.cos(angle), np.sin(angle)]) * length
        start, end = (length - tip).astype(int), (length + tip).astype(int)
        cv2.line(kernel, tuple(map(int, start)), tuple(map(int, end)), 1.0, 1)
        layers.append(cv2.filter2D(noise, -1, kernel / kernel.sum()))
    field = _unit(_noise(cv2, rng, 1.8)) * 2.99
    index = np.clip(field, 0, 2.99)
    low = index.astype(int)
    stack = np.stack(layers)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    strokes = stack[low, rows, columns] * (1 - index % 1) + stack[low + 1, rows, columns] * (index % 1)
    return strokes / strokes.std() + rng.uniform(0.3, 1.5) * _noise(cv2, rng, 1.4) / _noise(cv2, rng, 1.4).std()


def _spots(cv2: Any, rng: np.random.Generator) -> np.ndarray:
    """Noise of one scale, cut at a level: spots, rosettes, camouflage."""
    scale = rng.uniform(3, 14)
    noise = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
    band = cv2.GaussianBlur(noise, (0, 0), scale) - cv2.GaussianBlur(noise, (0, 0), scale * 1.8)
    band = band / band.std()
    edge = rng.uniform(2, 12)
    spots = 1 / (1 + np.exp(-edge * (band - rng.uniform(-0.3, 1.2))))
    return spots + rng.uniform(0, 0.3) * _unit(_noise(cv2, rng))


def _stripes(cv2: Any, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 60)
    bend = rng.choice([0.0, rng.uniform(0, 60)]) * _unit(_noise(cv2, rng, 2.0))
    phase = (rows * np.sin(angle) + columns * np.cos(angle) + bend) * 2 * np.pi / period
    wave = np.sin(phase) + rng.choice([0.0, 0.5]) * np.sin(2.7 * phase + 1)
    return np.tanh(wave * rng.choice([0.5, 2.0, 8.0])) + rng.uniform(0, 0.4) * _unit(_noise(cv2, rng))


def _checks(cv2: Any, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    angle, period = rng.uniform(0, np.pi), rng.uniform(10, 60, 2)
    u = (rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / period[0]
    v = (rows * np.cos(angle) - columns * np.sin(angle)) * 2 * np.pi / period[1]
    both = np.sin(u) * np.sin(v) if rng.random() < 0.5 else np.sin(u) + np.sin(v)
    return np.tanh(both * rng.choice([1.0, 6.0])) + rng.uniform(0, 0.4) * _unit(_noise(cv2, rng))


def _leaves(cv2: Any, rng: np.random.Generator) -> np.ndarray:
    """Dead leaves: overlapping shapes whose sizes follow a power law, the statistics of scenes that occlude."""
    canvas = np.full((SIDE, SIDE), 0.5, np.float32)
    smallest, count = rng.uniform(3, 8), int(rng.integers(300, 900))
    sizes = np.sort(smallest * (1 - rng.random(count) * 0.998) ** -0.7)[::-1]
    square = rng.random() < 0.4
    long = rng.uniform(1, 3)
    for size in sizes:
        centre = tuple(int(v) for v in rng.integers(0, SIDE, 2))
        grey = float(rng.random())
        axes = (min(SIDE, size * np.sqrt(long)), min(SIDE, size / np.sqrt(long)))
        angle = float(rng.uniform(0, 180))
        if square:
            box = cv2.boxPoints((centre, (2 * axes[0], 2 * axes[1]), angle)).astype(np.int32)
            cv2.fillConvexPoly(canvas, box, grey, cv2.LINE_AA)
        else:
            cv2.ellipse(canvas, centre, (int(axes[0]) + 1, int(axes[1]) + 1), angle, 0, 360, grey, -1, cv2.LINE_AA)
    return canvas + rng.uniform(0, 0.5) * _unit(_noise(cv2, rng))


def _bricks(cv2: Any, rng: np.random.Generator) -> np.ndarray:
    """Rows of rectangles with joints: bricks, windows, shelves, tiles."""
    canvas = np.full((SIDE, SIDE), rng.uniform(0, 1), np.float32)
    height, width, joint = rng.integers(10, 60), rng.integers(10, 90), int(rng.integers(1, 8))
    spread = rng.choice([0.05, 0.3])
    base = rng.uniform(0, 1)
    shifted = rng.choice([0, 0.5])
    for number, top in enumerate(range(-int(height), SIDE, int(height))):
        for left in range(-int(width) + int(shifted * (number % 2) * width), SIDE, int(width)):
            grey = float(base + rng.normal(0, spread))
            cv2.rectangle(canvas, (left, top), (left + int(width) - joint, top + int(height) - joint), grey, -1)
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), float(rng.choice([0, rng.uniform(-40, 40)])), 1.0)
    canvas = cv2.warpAffine(canvas, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    return canvas + rng.uniform(0, 0.4) * _unit(_noise(cv2, rng))


def _cells(cv2: Any, rng: np.random.Generator) -> np.ndarray:
    """Distances to random points: pebbles, scales, cracks."""
    points = np.ones((SIDE, SIDE), np.uint8)
    count = int(rng.integers(40, 900))
    points[rng.integers(0, SIDE, count), rng.integers(0, SIDE, count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(points, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shades = rng.random(int(labels.max()) + 1)[labels]
    return rng.uniform(0, 1) * shades + rng.uniform(0, 1.5) * distance / distance.max() + 0.2 * _unit(_noise(cv2, rng))


def _unit(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(float(np.ptp(values)), 1e-6)


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """Draws a colour `[3]`, 0..255; grey and brown ones are more frequent than bright ones, as in photographs."""
    saturation = rng.beta(1.2, 2.2)
    hue = rng.random() if rng.random() < 0.6 else rng.normal(0.09, 0.05) % 1.0
    value = rng.beta(1.3, 1.2)
    shifted = np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return 255 * value * (1 - saturation + saturation * np.clip(shifted, 0, 1))


def random_palette(rng: np.random.Generator, base: np.ndarray | None = None) -> np.ndarray:
    """Draws two to four colours `[K, 3]`, 0..255: mostly shades of one colour, sometimes unlike ones.

    Args:
        base: a colour to begin with; drawn if None.
    """
    base = random_colour(rng) if base is None else base
    count = int(rng.integers(2, 5))
    spread = rng.choice([0.05, 0.15, 0.3, 0.5], p=[0.25, 0.35, 0.25, 0.15])
    light = np.exp(rng.normal(0, 1.6 * spread, (count, 1)))
    colours = base * light + rng.normal(0, 60 * spread, (count, 3))
    if rng.random() < 0.2:
        colours[int(rng.integers(count))] = random_colour(rng)
    return np.clip(colours, 0, 255)


def texture(
    cv2: Any, bank: np.ndarray, rng: np.random.Generator, size: tuple[int, int], palette: np.ndarray
) -> np.ndarray:
    """Draws a texture, uint8 `[height, width, 3]`.

    Args:
        size: (height, width), up to `SIDE`.
        palette: colours `[K, 3]` that the greys of a pattern are spread over.
    """
    pattern = bank[int(rng.integers(len(bank)))]
    scale = np.exp(rng.uniform(np.log(0.3), np.log(1.8)))
    height, width = (int(np.clip(side * scale, 8, SIDE)) for side in size)
    top, left = int(rng.integers(SIDE - height + 1)), int(rng.integers(SIDE - width + 1))
    piece = pattern[top : top + height, left : left + width]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    if rng.random() < 0.5 and height == width:
        piece = piece.T
    piece = cv2.resize(np.ascontiguousarray(piece), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    places = np.linspace(0, 255, len(palette))
    table = np.stack([np.interp(np.arange(256), places, palette[:, channel]) for channel in range(3)], axis=1)
    return np.asarray(cv2.applyColorMap(piece, np.ascontiguousarray(table.astype(np.uint8)[:, None])))
