"""The learned marker: order of marks, the second look, the shipped weights, and what happens without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

pytest.importorskip("cv2", reason="marking needs OpenCV (extra demo)")

from marked_discs import disc, overlap

from fastsam3d.errors import UserError
from fastsam3d.marking import learned
from fastsam3d.marking.learned import LearnedSegmenter, changed_at, in_order, load_marker, shipped_marker
from fastsam3d.marking.network import MULTIPLE, MarkingNetwork, folded
from fastsam3d.marking.prompt_maps import CHANNELS
from fastsam3d.marking.segmentation import Prompt, opencv, segment


@pytest.fixture
def two_discs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red and a blue disc on noisy grey."""
    red, blue = disc((150, 200), 60, 80, 34), disc((150, 200), 140, 70, 28)
    image = np.random.default_rng(0).normal(128, 4, (150, 200, 3))
    image[red], image[blue] = [200, 50, 40], [40, 60, 200]
    return np.clip(image, 0, 255).astype(np.uint8), red, blue


class Recorded(nn.Module):
    """Stands in for the network: the answer is what is like the clicks in colour, and it keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def forward(self, maps: Tensor) -> Tensor:
        self.maps.append(maps)
        return nn.functional.interpolate(20 * (maps[:, 21:22] - 0.5), scale_factor=2)


def test_marks_are_gone_through_in_their_order() -> None:
    a, b, c = (10.0, 10.0, True), (20.0, 20.0, False), (30.0, 30.0, True)
    box = (0.0, 0.0, 50.0, 50.0)
    assert in_order(Prompt((a, b))) == [Prompt((a,)), Prompt((a, b))]
    assert in_order(Prompt((b, a, c))) == [Prompt((b, a)), Prompt((b, a, c))]  # nothing is asked before a click on it
    assert in_order(Prompt((b, a), box)) == [Prompt((), box), Prompt((b,), box), Prompt((b, a), box)]


def test_each_answer_is_given_to_the_next_and_a_small_object_is_looked_at_again(
    two_discs, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, red, _ = two_discs
    monkeypatch.setattr(learned, "stands_free", lambda *_: False)
    network = Recorded()
    mask = LearnedSegmenter(network)(image, Prompt(((60.0, 80.0, True), (50.0, 90.0, True))))
    assert overlap(mask, red) > 0.95
    first, second, again = network.maps
    assert first.shape[1] == CHANNELS and first[:, 23].sum() == 0
    assert second[0, 23].mean() == pytest.approx(red.mean(), abs=0.02)  # the last answer, over the whole picture
    assert again[0, 23].mean() > 1.3 * red.mean()  # over the piece about the disc
    assert all(side % (MULTIPLE // 2) == 0 for maps in network.maps for side in maps.shape[2:])


def test_a_box_limits_the_mask_and_small_pictures_are_refused(two_discs) -> None:
    image, red, blue = two_discs
    mask = LearnedSegmenter(Recorded())(image, Prompt(((60.0, 80.0, True),), (20.0, 40.0, 100.0, 120.0)))
    assert overlap(mask, red) > 0.9 and not (mask & blue).any() and not mask[:39].any()
    assert not LearnedSegmenter(Recorded())(image, Prompt(((5.0, 5.0, False),))).any()
    with pytest.raises(UserError, match="at least 8 a side"):
        LearnedSegmenter(Recorded())(image[:5], Prompt(((2.0, 2.0, True),)))


def test_what_stands_free_before_a_smooth_backdrop_is_left_to_the_plain_marker(two_discs) -> None:
    image, *_ = two_discs
    prompt = Prompt(((60.0, 80.0, True),))
    network = Recorded()
    assert np.array_equal(LearnedSegmenter(network)(image, prompt), segment(image, prompt)) and not network.maps
    assert not LearnedSegmenter(network)(image, Prompt((), (20.0, 40.0, 100.0, 120.0)))[:30].any() and not network.maps
    LearnedSegmenter(network)(image, Prompt(((10.0, 10.0, True),)))  # on the backdrop itself
    assert len(network.maps) >= 1
    LearnedSegmenter(network, alone=True)(image, prompt)
    assert len(network.maps) >= 2
    cut_by_the_rim = image[:, 40:]
    before = len(network.maps)
    LearnedSegmenter(network)(cut_by_the_rim, Prompt(((20.0, 80.0, True),)))
    assert len(network.maps) > before


def test_the_network_keeps_the_size_of_the_picture() -> None:
    network = MarkingNetwork().eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, CHANNELS, 32, 48)).shape == (2, 1, 64, 96)


def test_the_folded_network_answers_as_the_trained_one() -> None:
    generator = torch.Generator().manual_seed(0)
    trained = MarkingNetwork()
    for name, value in trained.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif name.endswith(("running_mean", ".1.bias")):
            value.copy_(torch.randn(value.shape, generator=generator))
    plain = MarkingNetwork(normalised=False)
    plain.load_state_dict(folded(trained.state_dict()))
    maps = torch.randn(1, CHANNELS, 32, 48, generator=generator)
    with torch.inference_mode():
        torch.testing.assert_close(plain.eval()(maps), trained.eval()(maps), rtol=1e-4, atol=1e-3)


def test_files_of_other_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, file)
    with pytest.raises(UserError, match="does not hold weights of the marking network"):
        load_marker(file)
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match="does not hold weights of the marking network"):
        load_marker(file)


def test_without_weights_the_plain_marker_marks_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(learned, "WEIGHTS", tmp_path / "marker.safetensors")
    shipped_marker.cache_clear()
    try:
        missing = shipped_marker()
        assert missing.segmenter is segment and "are missing" in missing.note and "less exact" in missing.note
        (tmp_path / "marker.safetensors").write_bytes(b"damaged")
        shipped_marker.cache_clear()
        damaged = shipped_marker()
        assert damaged.segmenter is segment and "does not hold weights" in damaged.note
    finally:
        shipped_marker.cache_clear()


def test_a_click_changes_the_piece_that_it_lies_in() -> None:
    before, after = np.zeros((2, 20, 30), dtype=bool)
    before[5:15, 5:15] = True
    after[5:15, 5:12] = after[2:6, 20:25] = True  # three columns less at the right, and a new piece
    less, more = before.copy(), before.copy()
    less[5:15, 12:15], more[2:6, 20:25] = False, True
    assert np.array_equal(changed_at(opencv(), before, after, (13.5, 9.5, False)), less)
    assert np.array_equal(changed_at(opencv(), before, after, (22.0, 3.0, True)), more)
    assert np.array_equal(changed_at(opencv(), before, after, (7.0, 7.0, True)), after)  # was right there already
    assert np.array_equal(changed_at(opencv(), before, after, (30.0, 20.0, False)), after)  # on the rim of the picture


def test_clicks_after_a_box_go_on_from_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins: the plain marker finds the left half of the box, the network less of it and some of the right half."""
    shape, box = (40, 40), (10.0, 10.0, 30.0, 30.0)
    left, stairs = np.zeros((2, *shape), dtype=bool)
    left[10:30, 10:20] = stairs[10:20, 20:30] = stairs[10:24, 10:20] = True
    clicks = ((25.0, 15.0, True), (15.0, 27.0, False))
    asked: list[tuple[int, np.ndarray]] = []

    def answer(self, cv2, image, prompt, previous=None):
        asked.append((len(prompt.clicks), previous.copy()))
        return stairs

    monkeypatch.setattr(learned, "segment", lambda image, prompt: left.copy())
    monkeypatch.setattr(LearnedSegmenter, "_in_window", answer)
    image = np.zeros((*shape, 3), dtype=np.uint8)
    segmenter = LearnedSegmenter(MarkingNetwork())
    assert np.array_equal(segmenter(image, Prompt((), box)), left)
    first = segmenter(image, Prompt(clicks[:1], box))
    assert np.array_equal(first, left | stairs)
    second = segmenter(image, Prompt(clicks, box))
    assert np.array_equal(second, stairs)
    # The second click began with the mask of the first, which was kept.
    assert [count for count, _ in asked] == [1, 2]
    assert np.array_equal(asked[0][1], left) and np.array_equal(asked[1][1], left | stairs)
    # Without what was kept, and after another picture, the answer is the same.
    assert np.array_equal(LearnedSegmenter(MarkingNetwork())(image, Prompt(clicks, box)), second)
    other = image + np.uint8(1)
    asked.clear()
    segmenter(other, Prompt(clicks, box))
    assert [count for count, _ in asked] == [1, 2]
    # The caller may change its picture in place.
    other += np.uint8(1)
    asked.clear()
    segmenter(other, Prompt((*clicks, clicks[0]), box))
    assert [count for count, _ in asked] == [1, 2, 3]


def test_the_shipped_weights_find_plain_discs(two_discs, monkeypatch: pytest.MonkeyPatch) -> None:
    image, red, blue = two_discs
    monkeypatch.setattr(learned, "stands_free", lambda *_: False)
    marker = shipped_marker()
    assert marker.note == "" and learned.WEIGHTS.stat().st_size < 0.28 * 2**20
    for prompt, wanted in (
        (Prompt(((60.0, 80.0, True),)), red),
        (Prompt(((140.0, 70.0, True),)), blue),
        (Prompt(((60.0, 80.0, True),), (20.0, 40.0, 100.0, 120.0)), red),
    ):
        assert overlap(marker.segmenter(image, prompt), wanted) > 0.9
        assert np.array_equal(marker.segmenter(image, prompt), marker.segmenter(image, prompt))
