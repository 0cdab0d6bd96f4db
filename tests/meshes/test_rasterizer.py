"""The rasteriser beside a plain one that looks at every pixel of every triangle."""

from __future__ import annotations

import numpy as np
import pytest

from fastsam3d.meshes import rasterizer
from fastsam3d.meshes.rasterizer import rasterize


def plain(screen: np.ndarray, depth: np.ndarray, faces: np.ndarray, width: int, height: int) -> dict[int, tuple]:
    """Nearest triangle, weights on the screen and depth of each covered pixel, by a loop."""
    found: dict[int, tuple] = {}
    for index, corners in enumerate(faces):
        a, b, c = screen[corners]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if (depth[corners] <= 1e-6).any() or abs(area) <= 1e-12:
            continue
        for row in range(height):
            for column in range(width):
                x, y = column + 0.5 - c[0], row + 0.5 - c[1]
                first = ((b[1] - c[1]) * x + (c[0] - b[0]) * y) / area
                second = ((c[1] - a[1]) * x + (a[0] - c[0]) * y) / area
                weights = np.array([first, second, 1 - first - second])
                if (weights < -1e-9).any():
                    continue
                place, near = row * width + column, float((weights / depth[corners]).sum())
                if place not in found or near >= found[place][1]:
                    found[place] = (index, near, weights)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_what_a_loop_over_all_pixels_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    screen = rng.uniform(-6, 26, (24, 2))
    if seed % 2:  # edges through the centres of pixels, triangles without area, equal triangles
        screen = np.round(screen * 2) / 2
    depth = rng.choice([-0.5, 1.0, 1.5, 2.0], 24) if seed % 3 == 0 else rng.uniform(0.5, 3, 24)
    faces = rng.integers(0, 24, (30, 3))
    faces = np.concatenate([faces, faces[:3]])
    hit, expected = rasterize(screen, depth, faces, 20, 18), plain(screen, depth, faces, 20, 18)
    assert hit.pixels.tolist() == sorted(expected)
    for place, face, weights, distance in zip(hit.pixels, hit.faces, hit.weights, hit.depth, strict=True):
        index, near, flat = expected[place]
        if face != index:  # rounding may part two that are equally near
            assert distance == pytest.approx(1 / near, rel=1e-12)
            continue
        corrected = flat / depth[faces[index]]
        assert weights == pytest.approx(corrected / corrected.sum(), abs=1e-9)
        assert distance == pytest.approx(1 / near, rel=1e-12)


def test_of_two_equal_triangles_the_later_one_is_taken_in_one_batch_and_in_many(monkeypatch) -> None:
    screen = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    faces = np.array([[0, 1, 2], [0, 1, 2]])
    for candidates in (rasterizer.CANDIDATES, 1):
        monkeypatch.setattr(rasterizer, "CANDIDATES", candidates)
        assert set(rasterize(screen, np.ones(3), faces, 8, 8).faces) == {1}


def test_a_square_of_two_triangles_covers_its_pixels_once() -> None:
    screen = np.array([[1.0, 1.0], [4.0, 1.0], [4.0, 3.0], [1.0, 3.0]])
    hit = rasterize(screen, np.ones(4), np.array([[0, 1, 2], [0, 2, 3]]), 6, 5)
    rows, columns = hit.pixels // 6, hit.pixels % 6
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(r, c) for r in (1, 2) for c in (1, 2, 3)]


def test_the_nearer_triangle_wins_whatever_the_order() -> None:
    screen = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]] * 2)
    depth = np.array([2.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        hit = rasterize(screen, depth, np.array(faces), 8, 8)
        assert np.allclose(hit.depth, 1.0)
        assert set(np.array(faces)[hit.faces][:, 0]) == {3}


def test_batches_do_not_change_the_picture(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    screen, depth = rng.random((60, 2)) * 40, rng.random(60) + 1
    faces = rng.integers(0, 60, (40, 3))
    whole = rasterize(screen, depth, faces, 40, 40)
    monkeypatch.setattr(rasterizer, "CANDIDATES", 50)
    parts = rasterize(screen, depth, faces, 40, 40)
    assert np.array_equal(whole.pixels, parts.pixels)
    assert np.array_equal(whole.faces, parts.faces)


def test_interpolation_is_perspective_correct() -> None:
    # An edge from depth 1 to depth 3: in the middle of the screen 1/z is the mean of 1 and 1/3, so z = 1.5,
    # and # the point is a quarter of the way from the near end.
    screen = np.array([[0.5, 0.5], [4.5, 0.5], [0.5, 100.5]])
    hit = rasterize(screen, np.array([1.0, 3.0, 1.0]), np.array([[0, 1, 2]]), 5, 1)
    middle = np.flatnonzero(hit.pixels == 2)[0]
    assert hit.depth[middle] == pytest.approx(1.5)
    assert hit.weights[middle] == pytest.approx([0.75, 0.25, 0.0])


def test_triangles_behind_the_camera_and_degenerate_ones_are_left_out() -> None:
    screen = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [4.0, 4.0]])
    assert len(rasterize(screen, np.array([1.0, -1.0, 1.0, 1.0]), np.array([[0, 1, 2]]), 8, 8).pixels) == 0
    assert len(rasterize(screen, np.ones(4), np.array([[1, 3, 2], [0, 0, 0]]), 8, 8).pixels) == 0
