"""What a visitor keeps: names and files of the objects, masks, earlier runs; and what the page says before a run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import trimesh
from app_stand_in import PATIENCE
from PIL import Image

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.app.page import fragments, results
from fastsam3d.app.page.file_settings import preparation_of
from fastsam3d.app.runs.queue import DONE
from fastsam3d.app.runs.results import write_results
from fastsam3d.app.visitors.picture import file_name
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.app.visitors.visitor import Session
from fastsam3d.errors import UserError

MIDDLE = {"action": "click", "x": 0.5, "y": 0.5, "inside": True}


def test_names_and_changed_meshes_are_in_the_files_and_can_be_written_again(session: Session) -> None:
    pytest.importorskip("fast_simplification", reason="fewer faces need fast-simplification (extra simplify)")
    pytest.importorskip("xatlas", reason="textures need xatlas (extra texture)")
    session.act({"action": "rename", "index": 0, "name": "My Chair"})
    job = session.start(session.request(load_preset("fast"), 0, 1, preparation=preparation_of(400, 512, True)))
    assert job.wait(PATIENCE) and job.state == DONE, job.message
    first = session.finished
    assert first.request.object_names == ("my_chair",)

    def written() -> tuple[set[str], trimesh.Trimesh]:
        files = {path.name: path for path in session.finished.files.files}
        return set(files), trimesh.load(files["my_chair.glb"], file_type="glb", force="mesh")

    names, mesh = written()
    assert {"my_chair.mtl", "my_chair_texture.png", "my_chair.stl"} <= names  # the first two beside the OBJ file
    assert mesh.visual.material.baseColorTexture.size == (512, 512)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight and 200 < len(mesh.faces) < 500
    job = session.start_writing(preparation_of(None, 0, False))
    assert job.wait(PATIENCE) and job.state == DONE, job.message
    run = session.finished.comparison.candidates[0]
    assert run is first.comparison.candidates[0]  # nothing was computed again
    assert len(written()[1].faces) == len(run.scene.reconstructions[0].mesh.faces) > 500
    assert session.finished.number == first.number and not first.files.folder.exists()


def test_earlier_runs_can_be_looked_at_again(session: Session, studio: Studio) -> None:
    for seed in (4, 5):
        job = session.start(session.request(load_preset("fast"), seed, 1))
        assert job.wait(PATIENCE) and job.state == DONE, job.message
    session.show_run(1)
    shown = results.shown(session.finished, studio.folder, session.history.items)
    assert (shown["seed"], shown["number"]) == (4, 1) and [item["number"] for item in shown["history"]] == [1, 2]
    job = session.start_plain()  # of the run that is shown, which keeps its place
    assert job.wait(PATIENCE) and job.state == DONE, job.message
    assert [item.number for item in session.history.items] == [1, 2] and list(session.finished.comparison.plain) == [4]
    for gone in (0, 9, None, "2"):
        with pytest.raises(UserError, match="only the last ones are kept"):
            session.show_run(gone)


def test_doubts_about_picture_and_masks_are_said(studio: Studio, tmp_path: Path) -> None:
    session = Session(studio)
    Image.fromarray(np.full((40, 60, 3), 3, dtype=np.uint8)).save(tmp_path / "dark.png")
    note = session.open_upload(tmp_path / "dark.png")
    assert note.startswith("The picture dark.png is nearly black") and str(tmp_path) not in note
    assert session.doubts() == []
    session.act({"action": "box", "left": 0, "top": 0, "right": 1, "bottom": 1})
    session.act({"action": "rename", "index": 0, "name": "all"})
    assert session.doubts() == ["The mask of all covers the whole picture, so the background counts as the object."]
    session.act({"action": "stroke", "points": [[0.5, 0.5]], "radius": 0.2, "inside": False})
    (said,) = session.doubts()
    assert "is it inverted?" in said


def test_a_mark_that_finds_nothing_is_said(studio: Studio) -> None:
    studio.segmenter = lambda image, prompt: np.zeros(image.shape[:2], dtype=bool)
    session = Session(studio)
    session.open_example("chair")
    assert "Nothing was found there" in session.act(MIDDLE)
    assert session.act({"action": "undo"}) is None


def test_the_mask_of_the_active_object_is_a_file(session: Session) -> None:
    session.act({"action": "rename", "index": 0, "name": "My Chair"})
    name, data = session.mask_file()
    assert name == "my_chair_mask.png"
    assert ((np.asarray(Image.open(io.BytesIO(data))) == 255) == session.marking.masks[0]).all()
    session.act({"action": "clear"})
    with pytest.raises(UserError, match="Mark an object first"):
        session.mask_file()


def test_names_of_objects_are_names_of_files() -> None:
    for given, kept in {"My Chair": "my_chair", "..": "object", "image": "image_object", "a/b\\c": "a_b_c"}.items():
        assert file_name(given) == kept


def test_the_page_says_what_the_small_model_is_and_nothing_of_others() -> None:
    assert "synthetic toys" in fragments.header("<p>@model</p>", fragments.SMALL_MODEL)
    assert fragments.header("<p>@model</p>", None) == "<p></p>"


def test_other_weights_are_not_called_the_small_model() -> None:
    from types import SimpleNamespace

    from fastsam3d.cli.commands.demo import _model_note

    def note(model: str, checkpoint_dir: str | None = None) -> str | None:
        return _model_note(SimpleNamespace(model=model, checkpoint_dir=checkpoint_dir))  # type: ignore[arg-type]

    assert note("mini") is fragments.SMALL_MODEL
    assert note("sam3d", "/weights") is note("mini", "/own/weights") is None


def test_nothing_is_left_behind_when_writing_fails(session: Session, studio: Studio, tmp_path: Path) -> None:
    job = session.start(session.request(load_preset("fast"), 0, 1, False))
    assert job.wait(PATIENCE)
    finished = session.finished
    before = set(tmp_path.rglob("*"))
    request = finished.request
    with pytest.raises(TypeError):
        write_results(tmp_path, finished.comparison, 0, request, {"bad": object()})
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("values", [("x", 0, 0), (3, 0, 0), (-5, 0, 0), (None, 77, 0), (float("inf"), 0, 0)])
def test_file_settings_that_are_not_possible_are_refused(values: tuple) -> None:
    with pytest.raises(UserError):
        preparation_of(*values)
