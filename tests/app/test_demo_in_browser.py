"""The demo from end to end: the real server with the small model, looked at in headless Chromium.

`FASTSAM3D_SCREENSHOT=docs/images/demo_app.png pytest tests/app/test_demo_in_browser.py -k screenshot` takes the
picture for the README; without the variable nothing is written outside of temporary folders.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from demo_in_browser import QUICK, Demo, at, choose, covered, drag, marked, shown
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
MUG = (0.79, 0.50)
"""Where the mug is in the example `toys`, in fractions of the picture."""


@pytest.fixture(scope="module")
def demo(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    pytest.importorskip("gradio", reason="the page needs Gradio (extra demo)")
    pytest.importorskip("cv2", reason="marking by clicks needs OpenCV (extra demo)")
    home = tmp_path_factory.mktemp("demo")
    demo = Demo(home, *QUICK)
    yield demo
    assert demo.end() == 0
    assert list(home.glob("fastsam3d-demo-*")) == []  # all files went with it
    assert "Traceback" not in (home / "stderr.txt").read_text()


def test_from_the_example_to_the_file(open_page: Callable[..., Any], demo: Demo) -> None:
    """One short way through the page: everything else about it is in the slow tests below."""
    page = open_page()
    page.click("#go")
    page.wait_for_selector("#status .notice >> text=Choose a picture first")
    choose(page, "toys")
    page.wait_for_selector("#status .notice", state="detached")  # mended, so no longer said
    page.mouse.click(*at(page, MUG))
    page.wait_for_selector(".chip")
    mask = marked(page)
    truth = np.asarray(Image.open(ROOT / "examples" / "toys" / "1.png").resize(mask.shape[::-1]))[..., 3] > 127
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    page.fill(".chip input", "Mug")
    page.press(".chip input", "Enter")
    page.wait_for_selector(".marker:not([data-busy])")

    page.click("#go")
    page.wait_for_selector("#headline .headline")
    assert 0.05 < covered(shown(page, "left")) < 0.9  # the mug is green, and it covers a good part of the view
    assert page.locator("[data-side=right]").is_hidden() and page.locator("[data-do=plain]").is_visible()
    with page.expect_download() as download:
        page.click("#files a >> nth=0")
    assert download.value.suggested_filename == "mug.glb"
    mesh = trimesh.load(download.value.path(), file_type="glb", force="mesh")
    assert len(mesh.faces) > 100

    page.click("button[role=tab] >> text=Ask a room")
    page.wait_for_selector("#room-picture img.room, #ask-problem")

    assert list(demo.home.rglob("report.json"))
    page.close()
    deadline = time.monotonic() + 600
    while list(demo.home.rglob("report.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert list(demo.home.rglob("report.json")) == []  # who leaves takes their files along


@pytest.mark.slow
def test_off_beside_it_the_slider_earlier_runs_and_the_archive(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    choose(page, "chair")
    page.click("text=Use the masks that come with it")
    page.wait_for_selector(".chip")
    page.click("#go")
    page.wait_for_selector("#headline .headline")
    page.click("[data-do=plain]")
    page.wait_for_selector("#headline >> text=instead of")
    assert re.search(r"off.*[\d.]+ s instead of [\d.]+ s", page.inner_text("#headline"))
    for side in ("left", "right"):
        assert 0.05 < covered(shown(page, side)) < 0.9
    page.click("#table summary")
    table = page.inner_text("#table")
    assert "sparse structure" in table and "forecast" in table and "balanced" in table

    page.click("button[data-show=photo]")
    photo, result = (pixels_of(page, f".wipe .{name}") for name in ("under", "over"))
    assert photo.shape == result.shape and 0.01 < (np.abs(photo - result).max(axis=2) > 20).mean() < 0.8
    frame = page.locator(".wipe .frame").bounding_box()
    page.mouse.click(frame["x"] + 0.8 * frame["width"], frame["y"] + 20)
    line = page.locator(".wipe .line").bounding_box()
    assert (line["x"] - frame["x"]) / frame["width"] == pytest.approx(0.8, abs=0.03)
    page.click("button[data-show=model]")

    page.click("#files summary")
    with page.expect_download() as download:
        page.click("#files a >> text=object_1.stl >> nth=0")
    assert download.value.suggested_filename.endswith("object_1.stl")
    with page.expect_download() as download:
        page.click("#files a >> text=Everything")
    path = tmp_path / "result.zip"
    download.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        report = json.loads(archive.read("report.json"))
        assert [run["preset"] for run in report["runs"]] == ["balanced", "off"]

    page.click("#preset >> text=Fastest")
    page.click("#go")
    page.wait_for_selector(".runs button >> nth=1")
    assert page.inner_text(".runs button[aria-pressed=true]").startswith("2 · fast")
    page.click(".runs button >> nth=0")
    page.wait_for_selector("#headline >> text=instead of")

    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.click("#preset >> text=Careful")  # the browser asks only who has done something on the page
    page.close(run_before_unload=True)
    deadline = time.monotonic() + 60
    while not asked and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert asked == ["beforeunload"] and not page.is_closed()


def pixels_of(page: Any, selector: str) -> np.ndarray:
    """The picture of an image element, int `[H, W, 3]`."""
    answer = page.request.get(page.locator(selector).evaluate("node => node.src"))
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB")).astype(int)


@pytest.mark.slow
def test_uploads_good_and_bad_and_a_second_object(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    (tmp_path / "notes.png").write_text("not a picture")
    page.set_input_files("[data-file=picture]", tmp_path / "notes.png")
    page.wait_for_selector("#said .notice >> text=notes.png is no picture that can be read")
    page.wait_for_selector(".marker:not([data-busy])")

    rows, columns = np.mgrid[:120, :160]
    discs = {name: (rows - 60) ** 2 + (columns - x) ** 2 < 28**2 for name, x in (("left", 45), ("right", 115))}
    photo = np.full((120, 160, 3), 150, dtype=np.uint8)
    photo[discs["left"]], photo[discs["right"]] = (200, 60, 40), (40, 80, 210)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(discs["right"]).save(tmp_path / "mask.png")
    page.set_input_files("[data-file=picture]", tmp_path / "photo.png")
    page.wait_for_selector(".marker[data-state=open] .photo[src]")
    page.click("#go")
    page.wait_for_selector("#status .notice >> text=Mark an object first")

    page.wait_for_function("document.querySelector('.marker .photo').complete")
    drag(page, (0.08, 0.24), (0.48, 0.76))
    page.wait_for_selector(".chip")
    page.set_input_files("[data-file=mask]", tmp_path / "mask.png")
    page.wait_for_selector(".chip >> nth=1")
    mask = marked(page)
    both = discs["left"] | discs["right"]
    assert (mask & both).sum() / (mask | both).sum() > 0.85
    page.click("[aria-label='Remove object 2']")
    page.wait_for_selector(".chip >> nth=1", state="detached")
    page.click("[data-do=undo]")
    page.wait_for_selector(".chip", state="detached")


@pytest.mark.slow
def test_nothing_is_cut_off_on_a_phone(open_page: Callable[..., Any]) -> None:
    page = open_page(390, 844)
    choose(page, "chair")
    page.click("text=Use the masks that come with it")
    page.wait_for_selector(".chip")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#go").bounding_box()["width"] > 300


@pytest.mark.slow
def test_best_of_seeds_stopping_and_a_later_comparison(open_page: Callable[..., Any]) -> None:
    page = open_page()
    choose(page, "chair")
    page.click("text=Use the masks that come with it")
    page.wait_for_selector(".chip")
    page.click("#more button")
    page.fill("#count input[type=number]", "8")
    page.press("#count input[type=number]", "Enter")
    page.click("#go")
    page.click("#stop")
    page.wait_for_selector("#status .notice >> text=Stopped")
    page.fill("#count input[type=number]", "3")
    page.press("#count input[type=number]", "Enter")
    page.click("#go")
    page.wait_for_selector(".seeds button >> nth=2")
    assert page.locator(".seeds button >> text=best").count() == 1
    other = page.locator(".seeds button[aria-pressed=false]").first
    seed = re.search(r"seed (\d+)", other.inner_text()).group(1)
    other.click()
    page.wait_for_selector(f".seeds button[aria-pressed=true] >> text=seed {seed}")
    assert covered(shown(page, "left")) > 0.05
    page.click("[data-do=plain]")
    page.wait_for_selector("#headline >> text=instead of")
    assert page.locator(f".seeds button[aria-pressed=true] >> text=seed {seed}").count() == 1
    assert covered(shown(page, "right")) > 0.05


@pytest.mark.slow
def test_visitors_wait_for_each_other_and_see_only_their_own(open_page: Callable[..., Any]) -> None:
    first, second = open_page(), open_page()
    for page, example in ((first, "chair"), (second, "car")):
        choose(page, example)
        page.click("text=Use the masks that come with it")
        page.wait_for_selector(".chip")
    first.click("#more button")
    first.fill("#count input[type=number]", "8")
    first.press("#count input[type=number]", "Enter")
    first.click("#go")
    first.wait_for_selector("#status .progress li.now")
    second.click("#go")
    second.wait_for_selector("#status >> text=1 run before yours")
    first.click("#stop")
    second.wait_for_selector("#headline .headline")
    assert covered(shown(second, "left")) > 0.05
    first.wait_for_selector("#status .notice >> text=Stopped")
    assert first.locator("#headline .headline").count() == 0


@pytest.mark.slow
def test_screenshot_for_the_documentation(
    open_page: Callable[..., Any], browser: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With all steps and a warm model, so that the seconds in the picture are those of a real run."""
    target = os.environ.get("FASTSAM3D_SCREENSHOT")
    if not target:
        pytest.skip("FASTSAM3D_SCREENSHOT=FILE is not set")
    demo = Demo(tmp_path)
    try:
        page = open_page(1280, 980, demo.address)
        choose(page, "toys")
        page.mouse.click(*at(page, MUG))
        page.wait_for_selector(".chip")
        page.click("text=+ Another object")
        page.wait_for_function("document.querySelectorAll('.chip').length === 2")
        drag(page, (0.07, 0.33), (0.295, 0.635))
        page.wait_for_selector(".marker:not([data-busy]) [aria-label='Remove object 2']")
        page.wait_for_timeout(500)
        page.click("#go")
        page.wait_for_selector("#headline .headline")
        page.click("[data-do=plain]")
        page.wait_for_selector("#headline >> text=instead of")
        for side in ("left", "right"):
            assert covered(shown(page, side)) > 0.05
        page.mouse.move(5, 5)
        page.evaluate("window.scrollTo(0, 0)")
        page.wait_for_timeout(600)
        page.screenshot(path=target)
    finally:
        demo.end()
