"""The demo as people start it, the browser that looks at it, and what people do in the page."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
QUICK = ("model.ss_sampler.inference_steps=6", "model.slat_sampler.inference_steps=6", "warm_up=false")
WAIT = 600_000
"""Milliseconds; a run takes seconds, but the machine may be busy."""


class Demo:
    """The server as people start it."""

    def __init__(self, home: Path, *words: str) -> None:
        self.home = home
        environment = os.environ | {"TMPDIR": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "gradio_demo.py"), "port=0", "device=cpu", *words],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=(home / "stderr.txt").open("w"),
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found is not None, (line, (home / "stderr.txt").read_text())
        self.address = found.group()

    def end(self) -> int:
        """Stops it as Ctrl-C does; returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(600)


def choose(page: Any, example: str) -> None:
    page.click(f"[data-example={example}]")
    page.wait_for_selector(".marker[data-state=open]:not([data-busy]) .photo[src]")
    page.wait_for_function("document.querySelector('.marker .photo').complete")


def at(page: Any, place: tuple[float, float]) -> tuple[float, float]:
    frame = page.locator(".marker .photo").bounding_box()
    return frame["x"] + place[0] * frame["width"], frame["y"] + place[1] * frame["height"]


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*at(page, start))
    page.mouse.down()
    page.mouse.move(*at(page, ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)))
    page.mouse.move(*at(page, end))
    page.mouse.up()


def shown(page: Any, side: str) -> np.ndarray:
    """The picture in a viewer, as people see it."""
    page.wait_for_selector(f".side[data-side={side}][data-loaded]")
    # What was loaded is drawn in the next frame, and seen after it.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    picture = page.locator(f".side[data-side={side}] canvas").screenshot()
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def covered(picture: np.ndarray) -> float:
    """Share of the pixels, the lines of text at the top aside, that an object covers: the ground is light and grey."""
    pixels = picture[40:].astype(int)
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return float(((spread > 40) | (pixels.max(axis=2) < 190)).mean())


def marked(page: Any) -> np.ndarray:
    """The masks as the page shows them, without their opaque outline, bool `[H, W]`."""
    address = page.get_attribute(".marker .masks", "src")
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))[..., 3]
    return (alpha > 0) & (alpha < 255)
