"""Marking in the page in headless Chromium: brush, eraser, keyboard, files from anywhere; the way of a photo.

`FASTSAM3D_PHOTO=coffee.png FASTSAM3D_PHOTO_SCREENSHOTS=docs/images pytest tests/app/test_marking_in_browser.py` takes
the pictures for docs/page.md, of scikit-image's photo of a cup; without the variables nothing is written outside of
temporary folders.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_in_browser import QUICK, Demo, at, choose, covered, drag, marked, shown
from PIL import Image

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def demo(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    pytest.importorskip("gradio", reason="the page needs Gradio (extra demo)")
    pytest.importorskip("cv2", reason="marking by clicks needs OpenCV (extra demo)")
    home = tmp_path_factory.mktemp("demo")
    demo = Demo(home, *QUICK)
    yield demo
    assert demo.end() == 0
    assert "Traceback" not in (home / "stderr.txt").read_text()


def test_brush_eraser_keyboard_and_files_from_anywhere(open_page: Callable[..., Any]) -> None:
    page = open_page()
    choose(page, "chair")

    def after(act: Callable[[], Any]) -> np.ndarray:
        before = page.get_attribute(".marker .masks", "src")
        act()
        page.wait_for_function(
            "old => document.querySelector('.marker .masks').getAttribute('src') !== old", arg=before
        )
        return marked(page)

    page.click("button[data-tool=brush]")
    painted = after(lambda: drag(page, (0.4, 0.5), (0.6, 0.5)))
    height, width = painted.shape
    assert painted[height // 2, round(0.4 * width) : round(0.6 * width)].all()
    page.click("button[data-tool=erase]")
    erased = after(lambda: page.mouse.click(*at(page, (0.5, 0.5))))
    assert not erased[height // 2, width // 2] and erased[height // 2, round(0.42 * width)]
    assert (after(lambda: page.keyboard.press("Control+z")) == painted).all()
    page.keyboard.press("Control+z")
    page.wait_for_selector(".chip", state="detached")

    page.click("button[data-tool=add]")
    page.focus(".marker .stage")

    def box_by_keys() -> None:
        keys = ["Shift+ArrowLeft"] * 4 + ["Shift+ArrowUp"] * 4 + ["b"]
        for key in keys + ["Shift+ArrowRight"] * 8 + ["Shift+ArrowDown"] * 8 + ["b"]:
            page.keyboard.press(key)

    assert after(box_by_keys).any()
    box = page.get_attribute(".marker .marks rect", "x")
    assert float(box.rstrip("%")) == pytest.approx(30, abs=0.5)
    with page.expect_download() as download:
        page.click("[data-save]")
    saved = np.asarray(Image.open(download.value.path()))
    assert saved.shape == np.asarray(Image.open(ROOT / "examples" / "chair" / "image.png")).shape[:2]
    assert set(np.unique(saved)) == {0, 255}

    data = base64.b64encode((ROOT / "examples" / "car" / "image.png").read_bytes()).decode()
    for event, key in (("DragEvent('drop'", "dataTransfer"), ("ClipboardEvent('paste'", "clipboardData")):
        choose(page, "chair")
        before = page.get_attribute(".marker .photo", "src")
        kept = page.evaluate(
            """data => {
              const holds = new DataTransfer(), bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
              holds.items.add(new File([bytes], "car.png", { type: "image/png" }));
              const event = new EVENT, { KEY: holds, bubbles: true, cancelable: true });
              document.querySelector(".outputs").dispatchEvent(event);
              return event.defaultPrevented;
            }""".replace("EVENT", event).replace("KEY", key),
            data,
        )
        assert kept  # the browser does not leave the page for the file
        page.wait_for_function("old => document.querySelector('.marker .photo').src !== old", arg=before)


def test_screenshots_of_the_way_of_a_photo(open_page: Callable[..., Any], tmp_path: Path) -> None:
    """Box, brush, run, slider, on the photo of a cup; as JPEG, because of the photo."""
    photo, target = os.environ.get("FASTSAM3D_PHOTO"), os.environ.get("FASTSAM3D_PHOTO_SCREENSHOTS")
    if not photo or not target:
        pytest.skip("FASTSAM3D_PHOTO=FILE and FASTSAM3D_PHOTO_SCREENSHOTS=FOLDER are not set")
    demo = Demo(tmp_path)
    try:
        page = open_page(1120, 760, demo.address)

        def picture(name: str) -> None:
            page.mouse.move(5, 5)
            page.evaluate("window.scrollTo(0, 0)")
            page.wait_for_timeout(600)
            page.screenshot(path=Path(target) / f"page_{name}.jpg", type="jpeg", quality=72)

        page.set_input_files("[data-file=picture]", photo)
        page.wait_for_selector(".marker[data-state=open]:not([data-busy]) .photo[src]")
        page.wait_for_function("document.querySelector('.marker .photo').complete")
        drag(page, (0.27, 0.02), (0.71, 0.70))
        page.wait_for_selector(".chip")
        page.click("button[data-tool=brush]")
        wall = ((0.33, 0.4), (0.36, 0.5), (0.42, 0.57), (0.5, 0.6), (0.57, 0.56), (0.62, 0.48), (0.645, 0.4))
        gap = ((0.36, 0.45), (0.43, 0.51), (0.5, 0.53), (0.57, 0.49), (0.61, 0.42))
        for way in (wall, gap, ((0.41, 0.6), (0.385, 0.63), (0.36, 0.69), (0.37, 0.72))):
            page.wait_for_selector(".marker:not([data-busy])")
            page.mouse.move(*at(page, way[0]))
            page.mouse.down()
            for place in way[1:]:
                page.mouse.move(*at(page, place), steps=8)
            page.mouse.up()
        page.wait_for_selector(".marker:not([data-busy])")
        page.fill(".chip input", "cup")
        page.press(".chip input", "Enter")
        picture("mark")
        page.click("#go")
        page.wait_for_selector("#headline .headline")
        assert covered(shown(page, "left")) > 0.02
        picture("result")
        page.click("button[data-show=photo]")
        picture("slider")
    finally:
        demo.end()
