"""The maps that the marking network reads, against values by hand and against plain twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.marking.geodesic import geodesic_distance
from fastsam3d.marking.prompt_maps import CHANNELS, geodesic_distances, lab_colours, picture_maps, prompt_maps
from fastsam3d.marking.segmentation import Prompt

ON, OFF, NEAR_ON, NEAR_OFF, WITHIN, DEPTH, LIKE_ON, LIKE_OFF = range(15, 23)
BEFORE, PATH_ON, PATH_OFF, SHARE, FIT = range(23, 28)


def two_halves(
    left: tuple[int, int, int], right: tuple[int, int, int], height: int = 64, width: int = 96
) -> torch.Tensor:
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = left, right
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def maps_of(image: torch.Tensor, prompt: Prompt, previous: torch.Tensor | None = None) -> torch.Tensor:
    before = torch.zeros(1, 1, *image.shape[2:]) if previous is None else previous
    result = prompt_maps(picture_maps(image), [prompt], before)
    assert result.shape == (1, CHANNELS, image.shape[2] // 2, image.shape[3] // 2)
    assert result.dtype == torch.float32 and torch.isfinite(result).all()
    return result[0]


def test_lab_colours_are_the_published_ones() -> None:
    """White, black and the three primaries of sRGB; values of Lindbloom's calculator (D65), to 0.02."""
    colours = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    wanted = [(100, 0, 0), (0, 0, 0), (53.24, 80.09, 67.20), (87.73, -86.18, 83.18), (32.30, 79.19, -107.86)]
    image = torch.tensor(colours, dtype=torch.uint8).T.reshape(1, 3, 1, 5)
    torch.testing.assert_close(lab_colours(image)[0, :, 0].T, torch.tensor(wanted), atol=0.02, rtol=0)


def test_the_batched_geodesic_distance_is_that_of_single_pictures() -> None:
    rng = np.random.default_rng(0)
    costs = rng.uniform(0.05, 3, (3, 20, 31)).astype(np.float32)
    sources = rng.random((3, 20, 31)) < 0.01
    sources[0] = False
    found = geodesic_distances(costs, sources, sweeps=3)
    for one, cost, source in zip(found, costs, sources, strict=True):
        np.testing.assert_allclose(one, geodesic_distance(cost, source, sweeps=3), rtol=1e-5)


def test_clicks_are_discs_and_fade_with_the_distance() -> None:
    image = two_halves((120, 120, 120), (120, 120, 120))
    maps = maps_of(image, Prompt(((21.0, 31.0, True), (71.0, 31.0, False))))
    # Places lie 2 pixels apart, the first at 1: of a disc of 3.5 pixels these are 9 (distances 0, 2 and 2.83).
    assert maps[ON].sum() == 9 and maps[ON, 15, 10] == 1 and maps[OFF].sum() == 9 and maps[OFF, 15, 35] == 1
    assert maps[NEAR_ON, 15, 10] == 1
    assert maps[NEAR_ON, 15, 22] == pytest.approx(np.exp(-24 / 24)) and maps[NEAR_OFF, 15, 23] == pytest.approx(
        np.exp(-1)
    )
    assert maps[WITHIN].sum() == 0 and maps[BEFORE].sum() == 0


def test_of_two_clicks_on_one_spot_the_later_counts() -> None:
    image = two_halves((120, 120, 120), (120, 120, 120))
    maps = maps_of(image, Prompt(((21.0, 31.0, True), (21.0, 31.0, False))))
    assert maps[ON].sum() == 0 and maps[OFF].sum() == 9


def test_a_box_is_known_by_its_inside_and_its_depth() -> None:
    maps = maps_of(two_halves((120, 120, 120), (120, 120, 120)), Prompt((), (20.0, 10.0, 60.0, 50.0)))
    assert maps[WITHIN].sum() == 20 * 20 and maps[WITHIN, 5:25, 10:30].all()
    assert maps[DEPTH, 14, 19] == pytest.approx(19 / 20)  # 19 pixels within a box of 40
    assert maps[DEPTH, 0, 0] == pytest.approx(-19 / 20) and maps[DEPTH, 14, 47] == -1


def test_colours_and_paths_tell_the_halves_apart() -> None:
    """A click on the red half: the red half is like it and reached without an edge, the blue one neither."""
    maps = maps_of(two_halves((200, 40, 40), (40, 40, 200)), Prompt(((24.0, 32.0, True),)))
    assert maps[LIKE_ON, 16, 4] > 0.99 and maps[LIKE_ON, 16, 44] < 0.01
    assert maps[PATH_ON, 16, 18] > 0.5 and maps[PATH_ON, 16, 30] < 0.05
    assert maps[FIT, 16, 12] > 0.6 > 0.2 > maps[FIT, 16, 36]
    box = maps_of(two_halves((200, 40, 40), (40, 40, 200)), Prompt((), (2.0, 2.0, 48.0, 62.0)))
    assert box[FIT, 16, 12] > 0.9 and box[FIT, 16, 36] < 0.1


def test_the_last_answer_says_what_colours_the_object_has() -> None:
    image = two_halves((200, 40, 40), (40, 40, 200))
    before = torch.zeros(1, 1, 64, 96)
    before[..., 48:] = 1
    maps = maps_of(image, Prompt(((24.0, 32.0, True),)), before)
    assert maps[FIT, 16, 36] > 0.9 and maps[FIT, 16, 12] < 0.1
    assert maps[BEFORE, :, 24:].all() and maps[BEFORE, :, :24].sum() == 0


def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    first, second = two_halves((200, 40, 40), (40, 40, 200)), two_halves((10, 200, 10), (90, 90, 90))
    prompts = [Prompt(((24.0, 32.0, True),)), Prompt((), (2.0, 2.0, 48.0, 62.0))]
    both = prompt_maps(picture_maps(torch.cat([first, second])), prompts, torch.zeros(2, 1, 64, 96))
    for one, image, prompt in zip(both, (first, second), prompts, strict=True):
        torch.testing.assert_close(one, maps_of(image, prompt))
