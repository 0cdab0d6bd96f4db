"""Inputs of a scene are neither overwritten nor mixed up, and a scene that is resumed is the scene that was begun."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from ball_pipeline import disc
from PIL import Image

from fastsam3d.errors import UserError
from fastsam3d.jobs import scenes
from fastsam3d.jobs.objects import run_object
from fastsam3d.jobs.scene_progress import FOLDER
from fastsam3d.jobs.scenes import SceneInterrupted, run_scene


def save_mask(path, row=20, column=20):
    Image.fromarray(disc(row, column).astype(np.uint8) * 255).save(path)


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def masks(vase, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    save_mask(folder / "cup.png")
    save_mask(folder / "bowl.png", 26, 46)
    return folder


class Interrupting:
    """A listener that interrupts when the second object's surface is made."""

    def __init__(self):
        self.seen, self.warnings = set(), []

    def step(self, text, done=None, total=None):
        if text.startswith("object ") and "surface" in text:
            self.seen.add(text.partition(":")[0])
        if len(self.seen) == 2:
            raise KeyboardInterrupt

    def warn(self, text):
        self.warnings.append(text)

    def note(self, text):
        pass


def begin(ask, vase, masks, **values):
    with pytest.raises(SceneInterrupted):
        run_scene(ask("o", image_path=str(vase), masks=str(masks), batch=1, **values), listener=Interrupting())


def test_the_folder_of_the_masks_is_no_output_folder(ask, vase, masks, loads, tmp_path):
    before = hashes(masks)
    (tmp_path / "o").symlink_to(masks)
    with pytest.raises(UserError, match="is the folder of the masks"):
        run_scene(ask("o", image_path=str(vase), masks=str(masks)))
    assert hashes(masks) == before and loads == []


def test_a_result_does_not_take_the_place_of_the_photo(ask, vase, loads, tmp_path):
    photo = tmp_path / "o" / "chair_texture.png"
    photo.parent.mkdir()
    photo.write_bytes((vase / "image.png").read_bytes())
    before = hashes(photo.parent)
    values = {"mask_path": str(vase / "0.png"), "name": "chair", "texture": 64, "export": ("obj",)}
    with pytest.raises(UserError, match=r"chair_texture\.png was read in this run"):
        run_object(ask("o", image_path=str(photo), **values))
    assert hashes(photo.parent) == before and loads == []


def test_objects_whose_files_collide_are_renamed_and_told_of(ask, vase, masks, listener, tmp_path):
    for name in ("scene", "cup_camera"):
        save_mask(masks / f"{name}.png", 24, 32)
    result = run_scene(ask("o", image_path=str(vase), masks=str(masks), batch=1), listener=listener)
    names = [item["name"] for item in result.report["objects"]]
    assert names == ["bowl", "cup", "cup_camera_2", "scene_2"] and len(listener.warnings) == 2
    files = [path.name for path in result.paths]
    assert len(set(files)) == len(files) == 4 * 3 + 3
    layout = json.loads((tmp_path / "o" / "layout.json").read_text())
    assert [item["name"] for item in layout["objects"]] == names


def test_a_mask_with_the_longest_name_is_reconstructed_and_resumed(ask, vase, masks):
    (masks / "cup.png").rename(masks / f"{'m' * 245}.png")
    begin(ask, vase, masks)
    result = run_scene(ask("o", image_path=str(vase), masks=str(masks), batch=1, resume=True))
    assert result.failed == () and len(result.report["scene"]["resumed"]) == 1


@pytest.mark.parametrize("other", ["00.png", "0.jpg"])
def test_two_masks_of_one_number_are_refused(ask, vase, loads, other):
    save_mask(vase / other)
    with pytest.raises(UserError, match="two masks of number 0"):
        run_scene(ask("o", image_dir=str(vase)))
    with pytest.raises(UserError, match="two masks of number 0"):
        run_object(ask("o", image_path=str(vase), mask_index=0))
    run_object(ask("o", image_path=str(vase), mask_index=1))


def test_masks_that_are_links_into_one_store_are_all_used(ask, vase, masks, tmp_path):
    store = tmp_path / "blobs"
    store.mkdir()
    for number, path in enumerate([vase / "image.png", *sorted(masks.iterdir())]):
        path.rename(store / f"b{number}")
        path.symlink_to(store / f"b{number}")
    result = run_scene(ask("o", image_path=str(vase / "image.png"), masks=str(masks), batch=1))
    assert [item["name"] for item in result.report["objects"]] == ["bowl", "cup"]


def test_a_complete_scene_is_not_computed_again(ask, vase, masks, listener, loads, tmp_path):
    wanted = {"image_path": str(vase), "masks": str(masks), "batch": 1}
    first = run_scene(ask("o", **wanted))
    before = hashes(tmp_path / "o")
    again = run_scene(ask("o", resume=True, **wanted), listener=listener)
    assert again.complete and listener.notes == [f"the scene in {tmp_path / 'o'} is complete, nothing to do"]
    assert loads == ["mini"] and hashes(tmp_path / "o") == before
    assert {*again.paths} == {*first.paths} and again.report == json.loads((tmp_path / "o/report.json").read_text())
    # Whatever is not what it was makes it incomplete.
    for change in (
        lambda: (tmp_path / "o" / "cup.glb").unlink(),
        lambda: (tmp_path / "o" / "scene.glb").write_bytes(b"damaged"),
        lambda: save_mask(masks / "cup.png", 22, 24),
    ):
        change()
        assert not run_scene(ask("o", resume=True, **wanted)).complete
        assert run_scene(ask("o", resume=True, **wanted)).complete
    assert not run_scene(ask("o", resume=True, export=("stl",), **wanted)).complete
    assert not run_scene(ask("o", resume=True, seed=5, export=("stl",), **wanted)).complete


@pytest.mark.parametrize("exchanged", ["cup", "bowl"])
def test_a_mask_that_was_exchanged_is_computed_again(ask, vase, masks, listener, tmp_path, exchanged):
    begin(ask, vase, masks)
    (kept,) = (path.stem for path in (tmp_path / "o" / FOLDER).glob("*.safetensors"))
    save_mask(masks / f"{exchanged}.png", 22, 40)
    wanted = {"image_path": str(vase), "masks": str(masks), "batch": 1}
    result = run_scene(ask("o", resume=True, **wanted), listener=listener)
    assert result.report["scene"]["resumed"] == ([] if exchanged == kept else [kept])
    assert (f"{exchanged} of the interrupted run was made of another mask" in "".join(listener.warnings)) == (
        exchanged == kept
    )
    fresh = run_scene(ask("fresh", **wanted))
    for one in fresh.paths:
        if one.suffix == ".glb":
            assert one.read_bytes() == (tmp_path / "o" / one.name).read_bytes()


def test_an_object_of_another_run_or_a_damaged_one_is_not_taken(ask, vase, masks, listener, tmp_path):
    begin(ask, vase, masks)
    (file,) = (tmp_path / "o" / FOLDER).glob("*.safetensors")
    data = file.read_bytes()
    # A run with another seed wrote the settings, this one the object.
    settings = tmp_path / "o" / FOLDER / "conditions.json"
    stored = json.loads(settings.read_text())
    stored["conditions"]["seed"] = 1
    settings.write_text(json.dumps(stored))
    wanted = {"image_path": str(vase), "masks": str(masks), "batch": 1, "resume": True}
    result = run_scene(ask("o", seed=1, **wanted), listener=listener)
    assert result.report["scene"]["resumed"] == [] and "is computed again" in listener.warnings[0]
    assert all(item["seed"] == 1 for item in result.report["objects"])
    (tmp_path / "o" / FOLDER).mkdir()
    file.write_bytes(data[: len(data) // 2])
    result = run_scene(ask("o", seed=2, **wanted))
    assert result.report["scene"]["resumed"] == []


@pytest.mark.parametrize("change", ["content", "a setting"])
def test_other_weights_at_the_same_path_are_refused(ask, vase, masks, tmp_path, change):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "ss_generator.safetensors").write_bytes(b"some weights")
    (weights / "pipeline.yaml").write_text("steps: 4")
    begin(ask, vase, masks, checkpoint_dir=str(weights))
    name = "ss_generator.safetensors" if change == "content" else "pipeline.yaml"
    (weights / name).write_bytes(b"others")
    with pytest.raises(UserError, match="a file of the weights has changed"):
        run_scene(ask("o", image_path=str(vase), masks=str(masks), batch=1, resume=True, checkpoint_dir=str(weights)))


def test_an_interruption_while_files_are_written_tells_what_is_kept(ask, vase, masks, monkeypatch, tmp_path):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "write_scene", interrupted)
    told = Interrupting()
    told.step = lambda *_: None
    with pytest.raises(SceneInterrupted):
        run_scene(ask("o", image_path=str(vase), masks=str(masks), batch=1), listener=told)
    assert told.warnings == ["interrupted; 2 of 2 objects are kept: --resume continues"]
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "o").iterdir()} == {FOLDER}


def test_masks_among_the_kept_objects_are_refused(ask, vase, masks, tmp_path):
    hidden = tmp_path / "o" / FOLDER
    hidden.parent.mkdir()
    masks.rename(hidden)
    with pytest.raises(UserError, match="which the run clears"):
        run_scene(ask("o", image_path=str(vase), masks=str(hidden)))
    assert len(list(hidden.iterdir())) == 2


def test_an_interruption_while_loading_tells_what_an_earlier_run_kept(ask, vase, masks, monkeypatch, tmp_path):
    begin(ask, vase, masks)

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastsam3d.sam3d.checkpoints.loading.load_pipeline", interrupted)
    told = Interrupting()
    with pytest.raises(SceneInterrupted):
        run_scene(ask("o", image_path=str(vase), masks=str(masks), batch=1, resume=True), listener=told)
    assert told.warnings == ["interrupted; 1 of 2 objects are kept: --resume continues"]


def test_files_of_others_in_the_hidden_folder_stay(ask, vase, masks, tmp_path):
    hidden = tmp_path / "o" / FOLDER
    hidden.mkdir(parents=True)
    (hidden / "notes.txt").write_text("mine")
    run_scene(ask("o", image_path=str(vase), masks=str(masks), batch=1))
    assert [path.name for path in hidden.iterdir()] == ["notes.txt"]
