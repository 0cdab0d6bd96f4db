"""Composes training pictures of objects whose masks are known: no photograph, no download.

A picture has a background and one to six objects, which may hide each other or reach beyond the rim. Then come shadows,
depth of field, light, and the errors of a camera and of a JPEG file. Objects are flat ones of `silhouettes`, or renders
of procedural objects. Object and background may have the same colours. Several objects of one kind may be side by side,
and only one of them is the object that is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsam3d.training.marker.patterns import random_colour, random_palette, texture
from fastsam3d.training.marker.silhouettes import random_object

SMALLEST = 0.006
"""Share of the picture that an object must show to be asked for."""


@dataclass(frozen=True)
class Materials:
    """What objects and backgrounds are made of.

    Attributes:
        patterns: of `pattern_bank`.
        renders: pictures of procedural objects, uint8 `[N, S, S, 4]` with the mask as alpha; N may be 0.
    """

    patterns: np.ndarray
    renders: np.ndarray


def training_picture(
    cv2: Any, materials: Materials, rng: np.random.Generator, shape: tuple[int, int], targets: int = 1
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Makes a picture, uint8 `[H, W, 3]`, and masks of its objects, bool `[H, W]`.

    Args:
        shape: (H, W).
        targets: number of masks. Larger objects are chosen more often. An object is chosen twice only if there are
            fewer objects than masks.
    """
    while True:
        image, owners = _scene(cv2, materials, rng, shape)
        sizes = np.bincount(owners.ravel(), minlength=2)[1:] / owners.size
        possible = np.where(sizes >= SMALLEST, sizes**0.75, 0)
        if not possible.any():
            continue
        masks: list[np.ndarray] = []
        while len(masks) < targets:
            left = possible.copy()
            while len(masks) < targets and left.any():
                target = int(rng.choice(len(sizes), p=left / left.sum()))
                masks.append(owners == target + 1)
                left[target] = 0
        return _photographed(cv2, rng, image), masks


def _scene(
    cv2: Any, materials: Materials, rng: np.random.Generator, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Colours float `[H, W, 3]`, 0..255, and the number of the object that each pixel shows, 0 for none."""
    height, width = shape
    palette = random_palette(rng)
    canvas = background(cv2, materials, rng, shape, palette).astype(np.float32)
    count = int(rng.choice([1, 2, 3, 4, 6], p=[0.4, 0.2, 0.2, 0.12, 0.08]))
    sharp = int(rng.integers(count))
    blur = float(rng.choice([0.0, rng.uniform(0.5, 6.0)], p=[0.5, 0.5]))
    if blur:
        canvas = cv2.GaussianBlur(canvas, (0, 0), blur)
    owners = np.zeros(shape, np.uint8)
    camouflage = rng.random() < 0.2
    alike = rng.random() < 0.3
    first: np.ndarray | None = None
    # One large object is what photographs of objects show, several are smaller.
    largest = rng.uniform(0.4, 1.35) if count <= 2 else rng.uniform(0.25, 1.1)
    for index in range(count):
        share = largest * (1.0 if index == sharp else rng.uniform(0.4, 1.1))
        size = int(np.clip(share * max(shape), 16, 1.4 * max(shape)))
        if first is not None and alike and rng.random() < 0.8:
            layer = cv2.resize(first, (size, size), interpolation=cv2.INTER_AREA)
            if rng.random() < 0.4:
                layer = np.ascontiguousarray(layer[:, ::-1])
        else:
            base = palette if camouflage and rng.random() < 0.8 else None
            layer = object_layer(cv2, materials, rng, size, base)
        first = layer if first is None else first
        spread = 0.18 if index == sharp else 0.42
        x = int(width * (0.5 + np.clip(rng.normal(0, spread), -0.55, 0.55)) - size / 2)
        y = int(height * (0.5 + np.clip(rng.normal(0, spread), -0.55, 0.55)) - size / 2)
        if rng.random() < 0.15:
            y = height - int(size * rng.uniform(0.5, 0.95))  # cut by the lower rim, as portraits are
        out_of_focus = blur * 0.6 if index != sharp and rng.random() < 0.7 else 0.0
        _put(cv2, rng, canvas, owners, layer, (x, y), index + 1, out_of_focus)
    return canvas, owners


def _put(
    cv2: Any,
    rng: np.random.Generator,
    canvas: np.ndarray,
    owners: np.ndarray,
    layer: np.ndarray,
    place: tuple[int, int],
    number: int,
    blur: float,
) -> None:
    """Lays an object, uint8 `[S, S, 4]`, over the canvas, with a shadow, and notes where it is seen."""
    height, width = owners.shape
    size, (x, y) = len(layer), place
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + size, width), min(y + size, height)
    if right - left < 2 or bottom - top < 2:
        return
    piece = layer[top - y : bottom - y, left - x : right - x].astype(np.float32)
    if rng.random() < 0.5:
        shadow = np.zeros(owners.shape, np.float32)
        shadow[top:bottom, left:right] = piece[..., 3] / 255
        shift = rng.normal(0, 0.06, 2) * size + [0, 0.03 * size]
        flat = np.array([[1, rng.normal(0, 0.2), shift[0]], [0, rng.uniform(0.5, 1.0), shift[1]]], np.float32)
        flat[1, 2] += (1 - flat[1, 1]) * bottom
        flat[0, 2] -= flat[0, 1] * bottom
        shadow = cv2.warpAffine(shadow, flat, (width, height))
        shadow = cv2.GaussianBlur(shadow, (0, 0), float(rng.uniform(0.8, 8)))
        canvas *= 1 - rng.uniform(0.1, 0.7) * shadow[..., None]
    if blur > 0.3:
        piece = cv2.GaussianBlur(piece, (0, 0), blur)
    alpha = piece[..., 3:] / 255
    region = canvas[top:bottom, left:right]
    region += alpha * (piece[..., :3] - region)
    seen = owners[top:bottom, left:right]
    seen[alpha[..., 0] > 0.5] = number


def object_layer(
    cv2: Any, materials: Materials, rng: np.random.Generator, size: int, base: np.ndarray | None
) -> np.ndarray:
    """Draws a random object, uint8 `[size, size, 4]`, colours and cover.

    Args:
        base: palette of the background where the object is to be like it.
    """
    if len(materials.renders) and rng.random() < 0.4:
        return _rendered(cv2, materials, rng, size, base)
    side = min(2 * size, 256)
    shapes = random_object(rng)
    pieces, cover = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    for index, shape in enumerate(shapes[:250]):
        corners = np.round((shape.polygon / 2 + 0.5) * side).astype(np.int32)
        cv2.fillPoly(cover, [corners], 0 if shape.cuts else 255)
        cv2.fillPoly(pieces, [corners], index)
    together = rng.random() < 0.3
    palettes = [random_palette(rng) if base is None else _varied(rng, base) for _ in range(4)]
    if together:
        palettes = [_varied(rng, palettes[0]) for _ in range(4)]
    colours = np.zeros((side, side, 3), np.float32)
    material = np.array([shape.material for shape in shapes[:250]], np.uint8)
    of_pixel = material[np.minimum(pieces, len(material) - 1)]
    for number, palette in enumerate(palettes):
        where = of_pixel == number
        if where.any():
            plain = rng.random() < 0.3
            colours[where] = (
                palette[0] if plain else texture(cv2, materials.patterns, rng, (side, side), palette)[where]
            )
    spread = rng.choice([0.0, 0.08, 0.2])
    shade = np.exp(rng.normal(0, spread, len(material))).astype(np.float32)
    colours *= shade[np.minimum(pieces, len(material) - 1)][..., None]
    if rng.random() < 0.75:
        colours *= _relief(cv2, rng, cover, pieces)[..., None]
    layer = np.concatenate([np.clip(colours, 0, 255), cover[..., None]], axis=2).astype(np.uint8)
    return np.asarray(
        cv2.resize(layer, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    )


def _varied(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """Nearly the same palette, in another order."""
    light = np.exp(rng.normal(0, 0.15))
    return np.clip(rng.permutation(palette) * light + rng.normal(0, 10, (1, 3)), 0, 255)


def _relief(cv2: Any, rng: np.random.Generator, cover: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Light on a cushion over the silhouette, and sometimes over each shape, `[H, W]` about 1."""
    inside = (cover > 127).astype(np.uint8)
    if rng.random() < 0.5:
        # The seams between shapes are valleys too.
        seam = (pieces[1:, 1:] != pieces[:-1, 1:]) | (pieces[1:, 1:] != pieces[1:, :-1])
        inside[1:, 1:][seam] = 0
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    reach = rng.uniform(0.05, 0.3) * len(cover)
    height = np.sqrt(np.clip(depth, 0, reach) * (2 * reach - np.clip(depth, 0, reach)))
    height = cv2.GaussianBlur(height, (0, 0), 0.02 * len(cover))
    slope_x, slope_y = cv2.Sobel(height, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(height, cv2.CV_32F, 0, 1) / 8
    light = np.array([rng.normal(0, 0.6), -abs(rng.normal(0, 0.7)), 1.0])
    light /= np.linalg.norm(light)
    shade = (light[2] - light[0] * slope_x - light[1] * slope_y) / np.sqrt(1 + slope_x**2 + slope_y**2)
    ambient = rng.uniform(0.3, 0.8)
    return np.asarray(ambient + (1.25 - ambient) * np.clip(shade, 0, 1))


def _rendered(
    cv2: Any, materials: Materials, rng: np.random.Generator, size: int, base: np.ndarray | None
) -> np.ndarray:
    """A render of a procedural object in other colours and with a texture."""
    render = materials.renders[int(rng.integers(len(materials.renders)))]
    if rng.random() < 0.5:
        render = render[:, ::-1]
    render = cv2.resize(np.ascontiguousarray(render), (size, size), interpolation=cv2.INTER_LINEAR)
    colours = render[..., :3].astype(np.float32)
    mixed = np.eye(3)[rng.permutation(3)] * 0.7 + rng.dirichlet(np.ones(3), 3) * 0.3
    colours = colours @ mixed.T.astype(np.float32)
    if base is not None or rng.random() < 0.6:
        palette = random_palette(rng) if base is None else base
        side = min(size, 384)
        pattern = texture(cv2, materials.patterns, rng, (side, side), palette).astype(np.float32)
        pattern = cv2.resize(pattern, (size, size)) if side != size else pattern
        amount = rng.uniform(0.2, 0.9) if base is None else rng.uniform(0.6, 1.0)
        light = colours.mean(2, keepdims=True) / 128
        colours = colours * (1 - amount) + pattern * light * amount
    return np.concatenate([np.clip(colours, 0, 255).astype(np.uint8), render[..., 3:]], axis=2)


def background(
    cv2: Any, materials: Materials, rng: np.random.Generator, shape: tuple[int, int], palette: np.ndarray
) -> np.ndarray:
    """Draws a background, uint8 `[H, W, 3]`: a texture, a room, a plain wall, or many shapes."""
    height, width = shape
    kind = rng.random()
    if kind < 0.2:  # a plain wall with soft light
        ends = [random_colour(rng), random_colour(rng)] if rng.random() < 0.3 else [palette[0], palette[-1]]
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[:height, :width] / max(shape) - 0.5
        along = np.clip(rows * np.sin(angle) + columns * np.cos(angle) + 0.5, 0, 1)[..., None]
        light = ends[0] + along * rng.uniform(0, 1) * (ends[1] - ends[0])
        return np.clip(light + rng.normal(0, rng.uniform(0, 6), light.shape), 0, 255).astype(np.uint8)
    if kind < 0.45:
        return texture(cv2, materials.patterns, rng, shape, palette)
    result = texture(cv2, materials.patterns, rng, shape, palette)
    if kind < 0.7:  # floor and wall
        horizon = int(height * rng.uniform(0.2, 0.85))
        result[horizon:] = texture(cv2, materials.patterns, rng, shape, random_palette(rng))[horizon:]
        if rng.random() < 0.5:
            return result
    for _ in range(int(rng.choice([4, 10, 30]))):  # clutter: shapes of other materials, large ones first
        size = int(np.exp(rng.uniform(np.log(0.06), np.log(0.8))) * max(shape))
        mask = np.zeros(shape, np.uint8)
        at = rng.uniform(0, 1, 2) * [width, height]
        outline = random_object(rng)[-1].polygon if rng.random() < 0.5 else rng.uniform(-1, 1, (4, 2))
        cv2.fillPoly(mask, [np.round(outline * size / 2 + at).astype(np.int32)], 255, cv2.LINE_AA)
        chosen = _varied(rng, palette) if rng.random() < 0.5 else random_palette(rng)
        left, top, wide, high = cv2.boundingRect(mask)
        if not wide or not high:
            continue
        piece = result[top : top + high, left : left + wide]
        where = mask[top : top + high, left : left + wide] > 127
        if rng.random() < 0.4:
            piece[where] = chosen[0]
        else:
            piece[where] = texture(cv2, materials.patterns, rng, (high, wide), chosen)[where]
    return result


def _photographed(cv2: Any, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The picture as a camera takes it and a file keeps it, uint8: light, exposure, blur, noise, JPEG."""
    height, width = image.shape[:2]
    if rng.random() < 0.4:  # light and shadow across the whole picture
        field = cv2.resize(rng.uniform(0, 1, (4, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        edge = rng.choice([1.0, 1.0, 12.0])
        image = image * (1 - rng.uniform(0, 0.6) / (1 + np.exp(-edge * (field - 0.5) * 4)))[..., None]
    if rng.random() < 0.1:
        image = np.repeat(image.mean(2, keepdims=True), 3, axis=2)
    values = np.clip(image / 255 * np.exp(rng.normal(0, 0.07, 3)), 0, 1) ** np.exp(rng.normal(0, 0.25))
    values = np.clip((values - 0.5) * np.exp(rng.normal(0, 0.2)) + 0.5 + rng.normal(0, 0.05), 0, 1).astype(np.float32)
    if rng.random() < 0.6:
        values = cv2.GaussianBlur(values, (0, 0), float(rng.uniform(0.3, 1.1)))
    if rng.random() < 0.6:
        values = values + rng.normal(0, rng.uniform(0, 0.04), values.shape)
    result = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.4:
        packed = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))])[1]
        result = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return np.asarray(result)
