"""Training of the marking network: its pictures, its simulated marks, its losses, and resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

cv2 = pytest.importorskip("cv2", reason="pictures are drawn with OpenCV (extra demo)")

from fastsam3d.marking.segmentation import Prompt  # noqa: E402
from fastsam3d.training.marker import training  # noqa: E402
from fastsam3d.training.marker.options import MarkerOptions  # noqa: E402
from fastsam3d.training.marker.patterns import SIDE, random_palette, texture  # noqa: E402
from fastsam3d.training.marker.pictures import SMALLEST, Materials, training_picture  # noqa: E402
from fastsam3d.training.marker.silhouettes import random_object  # noqa: E402
from fastsam3d.training.marker.simulated_marks import first_prompt, further_prompt, region_click  # noqa: E402
from fastsam3d.training.marker.training import marking_loss, rendered_objects  # noqa: E402


@pytest.fixture(scope="module")
def materials() -> Materials:
    """Two patterns and one render: enough to draw with."""
    rng = np.random.default_rng(0)
    noise = [cv2.resize(rng.integers(0, 255, (n, n), np.uint8), (SIDE, SIDE)) for n in (6, 40)]
    render = np.zeros((1, 64, 64, 4), np.uint8)
    render[0, 12:50, 20:44] = [200, 120, 40, 255]
    return Materials(np.stack(noise), render)


def test_objects_fill_their_square_and_never_leave_it() -> None:
    for seed in range(200):
        shapes = random_object(np.random.default_rng(seed))
        points = np.concatenate([shape.polygon for shape in shapes if not shape.cuts])
        assert np.isfinite(points).all() and np.ptp(points, axis=0).max() == pytest.approx(1.9)
        assert abs(points).max() == pytest.approx(0.95) and {shape.material for shape in shapes} <= set(range(4))


def test_a_seed_makes_the_same_picture_and_masks_do_not_overlap(materials: Materials) -> None:
    areas = []
    for seed in range(30):
        image, masks = training_picture(cv2, materials, np.random.default_rng(seed), (64, 96), 2)
        again, same = training_picture(cv2, materials, np.random.default_rng(seed), (64, 96), 2)
        assert image.shape == (64, 96, 3) and image.dtype == np.uint8 and np.array_equal(image, again)
        assert len(masks) == 2 and all(np.array_equal(a, b) for a, b in zip(masks, same, strict=True))
        assert all(mask.mean() >= SMALLEST for mask in masks)
        assert np.array_equal(*masks) or not (masks[0] & masks[1]).any()
        areas.append(masks[0].mean())
    assert 0.05 < np.mean(areas) < 0.5


def test_a_texture_has_the_colours_of_its_palette(materials: Materials) -> None:
    palette = np.array([[10.0, 20, 30], [10, 220, 30]])
    found = texture(cv2, materials.patterns, np.random.default_rng(1), (40, 60), palette)
    assert found.shape == (40, 60, 3) and (found[..., 0] == 10).all() and (found[..., 2] == 30).all()
    assert np.ptp(found[..., 1].astype(int)) > 40
    assert random_palette(np.random.default_rng(2)).shape[1] == 3


def test_marks_lie_where_they_say() -> None:
    truth = np.zeros((60, 80), dtype=bool)
    truth[20:41, 30:61] = True
    rng = np.random.default_rng(0)
    for _ in range(40):
        prompt = first_prompt(cv2, rng, truth)
        if prompt.box is None:
            ((x, y, inside),) = prompt.clicks
            assert inside and truth[int(y), int(x)]
        else:
            left, top, right, bottom = prompt.box
            box = np.zeros_like(truth)
            box[round(top) : round(bottom), round(left) : round(right)] = True
            assert (box & truth).sum() / (box | truth).sum() > 0.5
    answer = truth.copy()
    answer[:, 50:] = False  # the largest error is on the object, at its right
    x, y, inside = further_prompt(cv2, rng, Prompt(((40.5, 30.5, True),)), answer, truth).clicks[-1]
    assert inside and 50 <= x < 61 and 20 <= y < 41
    too_much = truth.copy()
    too_much[:, :20] = True
    x, y, inside = further_prompt(cv2, rng, Prompt(((40.5, 30.5, True),)), too_much, truth).clicks[-1]
    assert not inside and x < 20
    prompt = Prompt(((40.5, 30.5, True),))
    assert further_prompt(cv2, rng, prompt, truth, truth) is prompt
    clicks = {region_click(cv2, rng, truth, True) for _ in range(30)}
    assert (45.5, 30.5, True) in {(45.5, y, i) for _, y, i in clicks} and all(
        truth[int(y), int(x)] for x, y, _ in clicks
    )


def test_the_loss_of_a_right_answer_is_nearly_zero_and_iou_is_by_hand() -> None:
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1
    loss, iou = marking_loss(40 * truth - 20, truth)
    assert float(loss) < 1e-6 and float(iou) == 1
    half = torch.full_like(truth, -20.0)
    half[..., :1] = 20
    assert float(marking_loss(half, truth)[1]) == pytest.approx(0.5)
    unsure, _ = marking_loss(torch.zeros_like(truth), truth)
    # Probability 1/2 everywhere: cross entropy log 2; soft IoU 4 / (8 + 8 - 4) = 1/3.
    assert float(unsure) == pytest.approx(np.log(2) + 2 / 3, rel=1e-5)


def test_renders_are_made_once(tmp_path: Path) -> None:
    made = rendered_objects(tmp_path / "renders.npy", 1)
    assert made.shape == (2, 128, 128, 4) and set(np.unique(made[..., 3])) == {0, 255}
    assert np.array_equal(rendered_objects(tmp_path / "renders.npy", 99), made)


def test_an_interrupted_run_ends_with_the_same_weights(
    materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "pattern_bank", lambda *_: materials.patterns)
    monkeypatch.setattr(training, "SHAPES", ((64, 64), (64, 96)))

    def run(folder: str, steps: int) -> dict[str, torch.Tensor]:
        training.train(MarkerOptions(output=str(tmp_path / folder), steps=steps, minutes=None, pictures=2, objects=0))
        return torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)["model"]

    monkeypatch.setattr(training, "cosine_factor", lambda *_, **__: 0.5)  # the schedule knows the length of a run
    monkeypatch.setattr(training, "EARLY", 0.0)
    whole = run("whole", 2)
    run("parts", 1)
    parts = run("parts", 2)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
