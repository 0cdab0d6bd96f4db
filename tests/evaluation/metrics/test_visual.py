from __future__ import annotations

import numpy as np
import pytest
from evaluation_shapes import box_mesh

from fastsam3d.evaluation.metrics.visual import (
    HALF_SIDE,
    Renders,
    compare_renders,
    psnr,
    render_truth,
    render_views,
    ssim_map,
    welded,
)


def picture(value, size=24):
    return np.full((size, size, 3), value, dtype=float)


def test_ssim_of_constant_pictures_is_the_luminance_term():
    # No variance: (2 a b + c1) / (a^2 + b^2 + c1) with c1 = 1e-4, and the structure term is c2 / c2 = 1.
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)
    assert ssim_map(picture(0.2), picture(0.6)) == pytest.approx(np.full((24, 24), expected))
    assert ssim_map(picture(0.3), picture(0.3)) == pytest.approx(np.ones((24, 24)))


def test_ssim_in_the_middle_agrees_with_a_window_summed_by_hand():
    rng = np.random.default_rng(0)
    a, b = rng.random((11, 11, 1)), rng.random((11, 11, 1))
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(line, line) / np.outer(line, line).sum()
    x, y = a[..., 0], b[..., 0]
    mx, my = (window * x).sum(), (window * y).sum()
    vx, vy, cov = (window * x * x).sum() - mx**2, (window * y * y).sum() - my**2, (window * x * y).sum() - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert ssim_map(a, b)[5, 5] == pytest.approx(expected)


def test_psnr_by_hand():
    assert psnr(0.01) == pytest.approx(20.0)
    assert psnr(1.0) == 0.0
    assert psnr(0.0) == psnr(1e-9) == 60.0


def test_scores_count_only_what_a_silhouette_covers():
    masks = np.zeros((1, 24, 24), bool)
    masks[0, :8] = True
    a, b = np.ones((1, 24, 24, 3)), np.ones((1, 24, 24, 3))
    b[0, :8] = 0.9  # an error of 0.1 everywhere inside, none outside: 20 dB, not diluted to 25
    scores = compare_renders(Renders(a, masks), Renders(b, masks))
    assert scores["psnr"] == pytest.approx(20.0)
    assert scores["mask_iou"] == 1.0
    half = masks.copy()
    half[0, :4] = False
    assert compare_renders(Renders(a, masks), Renders(a, half))["mask_iou"] == 0.5
    nothing = Renders(a, np.zeros_like(masks))
    assert compare_renders(nothing, nothing) == {"ssim": 1.0, "psnr": 60.0, "mask_iou": 1.0}


def test_a_box_covers_the_pixels_that_its_outline_does():
    vertices, faces = box_mesh((-0.3, -0.3, -0.3), (0.3, 0.3, 0.3))
    renders = render_views(vertices, faces, np.full((8, 3), 0.5))
    # From azimuth 0 and 20 degrees above: 0.6 wide, and 0.6 (cos 20 + sin 20) high.
    pixel = 2 * HALF_SIDE / 128
    angle = np.deg2rad(20)
    assert renders.masks[0].sum() * pixel**2 == pytest.approx(0.36 * (np.cos(angle) + np.sin(angle)), rel=0.03)
    assert renders.masks.shape == (8, 128, 128)
    assert (renders.pictures[~renders.masks] == 1).all()
    turned = render_views(vertices[:, [1, 0, 2]], faces[:, ::-1], np.full((8, 3), 0.5))
    assert compare_renders(renders, turned)["ssim"] > 0.99  # the same box, mirrored, wound the other way


def test_empty_mesh_and_mesh_without_colours():
    assert not render_views(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3))).masks.any()
    vertices, faces = box_mesh((-0.3,) * 3, (0.3,) * 3)
    assert render_views(vertices, faces, None).masks.any()
    assert render_truth(object()) is None


def test_welding_joins_equal_corners_and_drops_what_has_collapsed():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0.0]])
    points, faces = welded(vertices, np.array([[0, 1, 2], [3, 4, 5], [6, 7, 1]]))
    assert len(points) == 4
    assert len(faces) == 2
