"""A studio with the small model at three steps, pictures that are quickly made, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from app_stand_in import PATIENCE, around_marks
from demo_in_browser import CHROMIUM, FLAGS, WAIT, Demo

from fastsam3d.app.runs.queue import JobQueue
from fastsam3d.app.server.uploads import Limits
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.app.visitors.visitor import Session
from fastsam3d.meshes.gltf import Node, glb_bytes
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.sam3d.checkpoints.loading import load_pipeline
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

STEPS = 3


@pytest.fixture(scope="session")
def quick_pipeline() -> Pipeline:
    pipeline = load_pipeline("mini", formats=("mesh",))
    for name in ("ss_generator", "slat_generator"):
        pipeline.models[name].inference_steps = STEPS  # type: ignore[assignment]
    return pipeline


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    queue = JobQueue(capacity=2, timeout=PATIENCE)
    yield queue
    queue.close()


@pytest.fixture
def studio(quick_pipeline: Pipeline, queue: JobQueue, tmp_path: Path) -> Studio:
    limits = Limits(file_bytes=200_000, pixels=1_000_000, side=256, objects=3, seeds=4, results=2)
    # Marks are cut without OpenCV here: what they enclose does not matter to a session.
    return Studio(lambda: quick_pipeline, tmp_path / "results", queue, limits, around_marks, warm=False)


@pytest.fixture
def session(studio: Studio) -> Session:
    session = Session(studio)
    session.open_example("chair")
    session.act({"action": "example_masks"})
    return session


def _box(color: tuple[float, float, float]) -> Mesh:
    shape = trimesh.creation.box(extents=(0.4, 0.6, 0.8))
    colors = np.tile(np.array(color, dtype=np.float32), (len(shape.vertices), 1))
    return Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int64), colors)


@pytest.fixture
def glb() -> bytes:
    """A red box, and a blue one half as large that is turned by 90 degrees about y and moved by (2, 0, 0)."""
    half = float(np.sqrt(0.5))
    moved = Node("blue", _box((0, 0, 1)), (0, half, 0, half), (2, 0, 0), (0.5, 0.5, 0.5))
    return glb_bytes([Node("red", _box((1, 0, 0))), moved])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra browser)")
    if CHROMIUM is None:
        pytest.skip("needs Chromium; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, demo: Demo) -> Iterator[Callable[..., Any]]:
    """Opens the page in a window of its own; at the end nothing may have gone wrong in it or left the machine."""
    contexts, problems = [], []

    def opened(width: int = 1280, height: int = 900, address: str = demo.address) -> Any:
        # Less motion: the objects stand still, so that a picture does not depend on when it is taken.
        context = browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((address, "data:", "blob:"))
                else problems.append(f"asked for {request.url}")
            ),
        )
        page.goto(address)
        page.wait_for_selector("#marker .stage")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []
