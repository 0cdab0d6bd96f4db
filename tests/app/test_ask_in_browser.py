"""The tab "Ask a room" from end to end: the real server with a tiny model, looked at in headless Chromium.

`FASTSAM3D_ROOM_SCREENSHOT=FILE pytest tests/app/test_ask_in_browser.py -k screenshot` takes a picture with the model
that ships.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_in_browser import QUICK, Demo
from tiny_scene_model import write_tiny_model

pytestmark = pytest.mark.slow  # a server of its own; `test_demo_in_browser.py` looks whether the tab is there


@pytest.fixture(scope="module")
def demo(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    pytest.importorskip("gradio", reason="the page needs Gradio (extra demo)")
    pytest.importorskip("transformers", reason="language models need transformers (extra mllm)")
    home = tmp_path_factory.mktemp("demo")
    folder = write_tiny_model(tmp_path_factory.mktemp("model"))
    demo = Demo(home, *QUICK, f"language_model={folder}")
    yield demo
    assert demo.end() == 0
    assert "Traceback" not in (home / "stderr.txt").read_text()


def open_tab(page: Any) -> None:
    page.click("button[role=tab] >> text=Ask a room")
    page.wait_for_selector("#room-picture img.room")


def picture_after(page: Any, act: Callable[[], None]) -> str:
    """The address of the picture of the room, once an action has changed it."""
    before = page.get_attribute("#room-picture img", "src")
    act()
    page.wait_for_function("before => document.querySelector('#room-picture img')?.src !== before", arg=before)
    return page.get_attribute("#room-picture img", "src")


def test_questions_are_answered_both_ways(open_page: Callable[..., Any]) -> None:
    page = open_page()
    open_tab(page)
    assert page.locator("#room-examples button").count() == 8
    picture_after(page, lambda: page.click("#room-examples >> text=find all yellow pillows"))
    page.wait_for_selector("#room-answers .answer >> nth=1")
    assert page.input_value("#room-question input, #room-question textarea") == "find all yellow pillows"
    sides = page.locator("#room-answers section").all_inner_texts()
    assert sides[0].startswith("unpruned") and "40 of 40 objects stayed" in sides[0]
    assert sides[1].startswith("balanced") and re.search(r"[\d.]+ ms to read the prompt, \d+ of 40", sides[1])

    page.fill("#room-question input, #room-question textarea", "the red armchair")
    page.click("#room-go")
    page.wait_for_selector("#room-status .notice >> text=does not know the word 'armchair'. Did you mean chair")


def test_rooms_of_a_seed_and_of_a_file(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    open_tab(page)
    picture_after(page, lambda: page.click("#room-source >> text=From a seed"))
    page.wait_for_selector("#room-picture img[alt*='60 objects']")

    page.click("#room-source >> text=My file")
    page.wait_for_selector("#room-file .file")
    page.fill("#room-question input, #room-question textarea", "what colour is the bed")
    page.click("#room-go")
    page.wait_for_selector("#room-status .notice >> text=Choose a room file first")
    wrong, right = tmp_path / "wrong.json", tmp_path / "mine.json"
    wrong.write_text('{"width": 3, "depth": 3, "objects": [{"class": "bad", "colour": "red"}]}')
    right.write_text(wrong.read_text().replace("bad", "bed"))
    page.set_input_files("[data-file=room]", wrong)
    page.wait_for_selector("#room-status .notice >> text=wrong.json: object 1 has the class")
    assert str(tmp_path) not in page.inner_text("#room-status")
    picture_after(page, lambda: page.set_input_files("[data-file=room]", right))
    page.wait_for_selector("#room-picture img[alt*='A room of 1 objects']")
    page.click("#room-go")
    page.wait_for_selector("#room-answers >> text=1 of 1 objects stayed")


def test_nothing_is_cut_off_on_a_phone(open_page: Callable[..., Any]) -> None:
    page = open_page(390, 844)
    open_tab(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#room-go").bounding_box()["width"] > 300


def test_screenshot_for_the_documentation(open_page: Callable[..., Any], tmp_path: Path) -> None:
    target = os.environ.get("FASTSAM3D_ROOM_SCREENSHOT")
    if not target:
        pytest.skip("FASTSAM3D_ROOM_SCREENSHOT=FILE is not set")
    demo = Demo(tmp_path, "warm_up=false")
    try:
        page = open_page(1280, 980, demo.address)
        open_tab(page)
        for _ in range(2):  # the first question loads the model
            picture_after(page, lambda: page.click("#room-examples >> text=find all yellow pillows"))
            page.wait_for_selector("#room-answers .answer >> nth=1")
        page.mouse.move(5, 5)
        page.wait_for_timeout(600)
        page.screenshot(path=target)
    finally:
        demo.end()
