"""The job of a scene, called from Python."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fastsam3d.errors import UserError
from fastsam3d.jobs.scene_progress import FOLDER
from fastsam3d.jobs.scenes import SceneInterrupted, read_scene, run_scene


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_files_and_report_of_a_scene(ask, vase, listener, tmp_path):
    result = run_scene(ask("o", image_dir=str(vase), batch=1), listener=listener)
    assert result.failed == ()
    expected = {f"object_{i}{end}" for i in range(3) for end in (".glb", "_camera.glb", "_points.ply")}
    assert names(tmp_path / "o") == {path.name for path in result.paths} == {
        *expected, "scene.glb", "layout.json", "report.json",
    }  # fmt: skip
    assert result.report["scene"]["objects"] == 3 and result.report["scene"]["resumed"] == []
    assert [item["name"] for item in result.report["objects"]] == ["object_0", "object_1", "object_2"]
    places = {text.partition(":")[0] for text, _, _ in listener.steps if text.startswith("object ")}
    assert places == {"object 1/3", "object 2/3", "object 3/3"}


def test_an_unusable_mask_is_left_out_and_named(ask, vase, listener):
    Image.fromarray(np.zeros((48, 64), dtype=np.uint8)).save(vase / "1.png")
    result = run_scene(ask("o", image_dir=str(vase), batch=1), listener=listener)
    assert result.failed == ("object_1",)
    assert listener.warnings == result.report["warnings"] and "object_1 is left out" in listener.warnings[0]


def test_a_scene_says_that_it_needs_the_layout(ask, vase, listener):
    read_scene(ask("o", image_dir=str(vase), layout=False), listener)
    assert listener.warnings == ["layout=false changes nothing in a scene: its objects are placed by their layout."]


def test_an_interrupted_scene_goes_on_and_ends_as_if_it_had_not_been(ask, vase, listener, tmp_path):
    whole = run_scene(ask("whole", image_dir=str(vase), batch=1))

    class Interrupting(type(listener)):
        def step(self, text, done=None, total=None):
            super().step(text, done, total)
            # Objects are computed in the order of their masks' contents: this is the second one's, whichever it is.
            if len({t.partition(":")[0] for t, _, _ in self.steps if t.startswith("object ") and "surface" in t}) == 2:
                raise KeyboardInterrupt

    told = Interrupting()
    with pytest.raises(SceneInterrupted):
        run_scene(ask("parts", image_dir=str(vase), batch=1), listener=told)
    assert told.warnings == ["interrupted; 1 of 3 objects are kept: --resume continues"]
    assert names(tmp_path / "parts") == {FOLDER}
    resumed = run_scene(ask("parts", image_dir=str(vase), batch=1, resume=True), listener=listener)
    assert listener.notes == ["1 of 3 objects are taken from the interrupted run"]
    assert len(resumed.report["scene"]["resumed"]) == 1 and names(tmp_path / "parts") == names(tmp_path / "whole")
    for one, other in zip(whole.paths, resumed.paths, strict=True):
        if one.suffix == ".glb":
            assert one.read_bytes() == other.read_bytes()
    layouts = [json.loads((tmp_path / folder / "layout.json").read_text()) for folder in ("whole", "parts")]
    assert layouts[0] == layouts[1]


def test_an_interruption_before_the_first_object_leaves_nothing(ask, vase, listener, tmp_path):
    class Interrupting(type(listener)):
        def step(self, text, done=None, total=None):
            if text.startswith("object "):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        run_scene(ask("o", image_dir=str(vase), batch=1), listener=Interrupting())
    assert not isinstance(caught.value, SceneInterrupted) and not (tmp_path / "o").exists()


def test_two_ways_to_name_the_picture_are_refused(ask, vase):
    with pytest.raises(UserError, match="were both given"):
        run_scene(ask("o", image_dir=str(vase), image_path=str(vase / "image.png")))
