"""A visitor's way from the picture to the files, without a page: with the small model at three steps."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from app_stand_in import PATIENCE
from PIL import Image

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.app.page import fragments, results
from fastsam3d.app.runs.comparison import OFF
from fastsam3d.app.runs.queue import DONE, FAILED, STOPPED, JobQueue
from fastsam3d.app.server.server import result_file
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.app.visitors.visitor import Session
from fastsam3d.app.visitors.visitors import Visitors
from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import choose_mask
from fastsam3d.jobs.pictures import read_picture

MIDDLE = {"action": "click", "x": 0.5, "y": 0.5, "inside": True}


def test_a_preset_beside_off_with_the_same_seed_and_all_files(session: Session, studio: Studio) -> None:
    pipeline_before = dict(vars(studio._load()))
    job = session.start(session.request(load_preset("balanced"), 5, 1, plain_too=True))
    assert job.wait(PATIENCE) and job.state == DONE, job.message
    finished = session.finished
    assert finished is not None and finished.selected == 5
    run, plain = finished.comparison.candidates[0], finished.comparison.plain[5]
    assert (run.preset, run.seed, plain.preset, plain.seed) == ("balanced", 5, OFF, 5)
    assert plain.report.stages["sparse_structure"].forecast == 0
    assert run.seconds == pytest.approx(sum(run.report.seconds.values())) and run.seconds > 0
    assert vars(studio._load()) == pipeline_before  # acceleration was taken off again

    with zipfile.ZipFile(finished.files.archive) as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
        assert {"report.json", "input/image.png", "input/0.png"} <= names
        for folder in ("balanced_seed_5", "off_seed_5"):
            files = ("object_1.glb", "object_1.ply", "object_1.obj", "object_1.stl", "scene.glb", "layout.json")
            assert {f"{folder}/{name}" for name in (*files, "over_photo.png")} <= names
        mesh = trimesh.load(io.BytesIO(archive.read("balanced_seed_5/object_1.glb")), file_type="glb", force="mesh")
        made = run.scene.reconstructions[0].mesh
        assert made is not None and len(mesh.faces) == len(made.faces)
        mask = np.asarray(Image.open(io.BytesIO(archive.read("input/0.png")))) > 0
        assert (mask == finished.request.masks[0]).all()
        report = json.loads(archive.read("report.json"))
    assert [(item["preset"], item["seed"]) for item in report["runs"]] == [("balanced", 5), ("off", 5)]

    shown = results.shown(finished, studio.folder, session.history.items)
    for side in ("left", "right"):
        path = shown[side]["model"].removeprefix("results/")
        assert result_file(studio.folder, path) is not None
    assert shown["comparable"] and shown["candidates"] == [] and shown["elevation"] is None
    assert result_file(studio.folder, shown["photo"].removeprefix("results/")) == finished.files.photo.resolve()
    assert "<td>" in results.table(finished) and "off" in results.headline(finished)
    links = results.downloads(finished, studio.folder)
    assert links.count("<a ") == len(finished.files.files) + 2
    assert links.index("Download GLB") < links.index("Everything") and 'download="object_1.glb"' in links


def test_one_seed_gives_one_object_whatever_ran_before(session: Session) -> None:
    found = []
    for preset in ("balanced", "off"):
        job = session.start(session.request(load_preset(preset), 1, 1, preset != OFF))
        assert job.wait(PATIENCE) and session.finished is not None
        comparison = session.finished.comparison
        run = comparison.plain.get(1) or comparison.candidates[0]
        found.append(run.scene.reconstructions[0].mesh.vertices)
    np.testing.assert_array_equal(found[0], found[1])


def test_of_several_seeds_the_one_that_fits_the_mask_best_is_shown(session: Session) -> None:
    job = session.start(session.request(load_preset("fast"), 0, 3, False))
    assert job.wait(PATIENCE) and session.finished is not None
    comparison = session.finished.comparison
    agreements = [run.agreement for run in comparison.candidates]
    assert [run.seed for run in comparison.candidates] == [0, 1, 2] and len(set(agreements)) == 3
    assert session.finished.selected == int(np.argmax(agreements)) and comparison.plain == {}
    written = [path.relative_to(session.finished.files.folder).as_posix() for path in session.finished.files.files]
    for seed in range(3):  # the best in every format, the others as GLB
        kinds = {path.rpartition(".")[2] for path in written if path.startswith(f"fast_seed_{seed}/object_1.")}
        assert kinds == ({"glb", "ply", "obj", "stl"} if seed == session.finished.selected else {"glb"})
    other = (session.finished.selected + 1) % 3
    session.select(other)
    assert session.finished.selected == other
    job = session.start_plain()
    assert job.wait(PATIENCE) and job.state == DONE, job.message
    assert session.finished.selected == other and set(session.finished.comparison.plain) == {other}
    for unknown in (99, "0; rm", None):
        with pytest.raises(UserError, match="was not run"):
            session.select(unknown)


def test_two_objects_one_of_which_fails(studio: Studio) -> None:
    session = Session(studio)
    session.open_example("chair")
    session.act({"action": "example_masks"})
    speck = np.zeros(session.picture.size, dtype=bool)
    speck[5, 5] = True
    session.marking.add_mask(speck)
    job = session.start(session.request(load_preset("fast"), 0, 1, False))
    assert job.wait(PATIENCE) and job.state == DONE, job.message
    assert "object_2 could not be reconstructed" in results.headline(session.finished)
    session.act({"action": "remove", "index": 0})
    job = session.start(session.request(load_preset("fast"), 0, 1, False))
    assert job.wait(PATIENCE) and job.state == FAILED and "Nothing could be reconstructed" in job.message


def test_mistakes_have_messages(studio: Studio, tmp_path: Path) -> None:
    session = Session(studio)
    with pytest.raises(UserError, match="Choose a picture first"):
        session.act(MIDDLE)
    with pytest.raises(UserError, match="no such example"):
        session.open_example("../../etc")
    session.open_example("car")
    with pytest.raises(UserError, match="Mark an object first"):
        session.request(load_preset("off"), 0, 1, True)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png is no picture"):
        session.open_upload(tmp_path / "broken.png")
    assert session.picture is not None  # what was open stays open
    with pytest.raises(UserError, match="no result yet"):
        session.start_plain()


def test_a_cut_out_is_marked_already_and_has_no_depth(studio: Studio, tmp_path: Path) -> None:
    image = Image.new("RGBA", (60, 40), (200, 10, 10, 0))
    image.paste((200, 10, 10, 255), (10, 10, 40, 30))
    image.save(tmp_path / "cut.png")
    session = Session(studio)
    session.open_example("chair")
    note = session.open_upload(tmp_path / "cut.png")
    assert note is not None and "transparent" in note and session.pointmap is None
    assert session.marking.masks[0].sum() == 30 * 20


def test_a_half_transparent_cut_out_is_marked_as_on_the_command_line(studio: Studio, tmp_path: Path) -> None:
    image = Image.new("RGBA", (60, 40), (200, 10, 10, 0))
    image.paste((200, 10, 10, 100), (10, 10, 40, 30))
    image.save(tmp_path / "cut.png")
    session = Session(studio)
    session.open_upload(tmp_path / "cut.png")
    on_command_line = choose_mask(read_picture(tmp_path / "cut.png"), 0).pixels
    assert session.marking.masks[0].sum() == 30 * 20 and (session.marking.masks[0] == on_command_line).all()


def test_off_is_not_compared_with_itself(session: Session) -> None:
    assert session.start(session.request(load_preset(OFF), 0, 1)).wait(PATIENCE)
    with pytest.raises(UserError, match="without acceleration already"):
        session.start_plain()


def test_who_leaves_while_files_are_written_leaves_no_files(
    session: Session, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastsam3d.app.runs import results as files

    write, begun, release = files._write_object, threading.Event(), threading.Event()

    def waiting(*values) -> None:
        begun.set()
        assert release.wait(PATIENCE)
        write(*values)

    monkeypatch.setattr(files, "_write_object", waiting)
    job = session.start(session.request(load_preset("fast"), 0, 1))
    assert begun.wait(PATIENCE)
    session.close()
    release.set()
    assert job.wait(PATIENCE) and job.state == STOPPED
    assert list(studio.folder.iterdir()) == [] and session.finished is None


def test_one_run_for_each_visitor_at_a_time_and_old_files_go(session: Session, studio: Studio, queue: JobQueue) -> None:
    request, release = session.request(load_preset("fast"), 0, 1, False), threading.Event()
    queue.submit(lambda _: release.wait(PATIENCE))
    job = session.start(request)
    with pytest.raises(UserError, match="not finished"):
        session.start(request)
    release.set()
    folders = []
    for _ in range(3):
        assert job.wait(PATIENCE) and job.state == DONE
        folders.append(session.finished.files.folder)
        job = session.start(request)
    job.wait(PATIENCE)
    kept = [folder.exists() for folder in folders]
    assert kept == [False, False, True]  # two results are kept for each visitor
    assert [item.number for item in session.history.items] == [3, 4]
    with pytest.raises(UserError, match="only the last ones are kept"):
        session.show_run(2)
    session.close()
    assert not any(folder.exists() for folder in folders) and list(studio.folder.iterdir()) == []


def test_stopping_a_run(session: Session) -> None:
    job = session.start(session.request(load_preset("off"), 0, 4, True))
    session.stop()
    assert job.wait(PATIENCE) and job.state == "stopped" and session.finished is None


def test_visitors_are_kept_apart_and_the_idle_make_room(studio: Studio) -> None:
    visitors = Visitors(studio, limit=2)
    first = visitors.session("a")
    assert visitors.session("a") is first and visitors.session("b") is not first
    visitors.session("a")
    visitors.session("c")
    assert len(visitors) == 2 and visitors.session("a") is first
    visitors.leave("a")
    visitors.leave("a")
    assert visitors.session("a") is not first


def test_text_from_elsewhere_is_escaped() -> None:
    assert "<script>" not in fragments.notice("<script>alert(1)</script>.png is no picture")
    assert fragments.notice(None) == fragments.notice("") == ""
