"""Every unusable input: a line or two on stderr, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastsam3d.cli.main import main
from fastsam3d.errors import UserError
from fastsam3d.jobs.output_folder import OutputFolder


def broken_files(folder: Path) -> None:
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    whole = (folder / "image.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (10, 10), 255).save(folder / "small.png")
    Image.new("L", (64, 48), 0).save(folder / "black.png")
    Image.new("RGBA", (64, 48), (255, 0, 0, 0)).save(folder / "clear.png")
    dot = np.zeros((48, 64), dtype=np.uint8)
    dot[5, 5] = 255
    Image.fromarray(dot).save(folder / "dot.png")
    colours = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "colour.png")
    np.save(folder / "flat.npy", np.zeros((48, 64)))
    np.save(folder / "wide.npy", np.zeros((10, 64, 3)))
    np.save(folder / "unknown.npy", np.full((48, 64, 3), np.nan))
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    (folder / "text.npy").write_text("not an array")
    (folder / "preset.yaml").write_text("step_caching: {enabled: true, strid: 3}\n")
    (folder / "file").write_text("")


# Words of the command line ({f} is the folder), and what the message must say: what, where, the way out.
CASES = {
    "missing picture": ("--image_path {f}/imag.png", ["imag.png does not exist", "image.png"]),
    "missing picture and folder": ("--image_path /nowhere/at/all.png", ["/nowhere/at/all.png does not exist"]),
    "name of a picture too long": (f"--image_path {'a' * 300}.png", ["png cannot be looked for (File name too long)"]),
    "name of a mask too long": (f"--mask_path {'a' * 300}.png", ["png cannot be looked for (File name too long)"]),
    "name of a preset too long": (f"acceleration={'a' * 300}.yaml", ["cannot be looked for (File name too long)"]),
    "stray word too long": ("a" * 5000, ["aaa' is neither a flag nor key=value. See --help."]),
    "folder without a picture": ("--image_path {f}/..", ["no image.png"]),
    "not an image": ("--image_path {f}/text.png", ["text.png is not an image", "PNG"]),
    "empty file": ("--image_path {f}/empty.png", ["empty.png is not an image"]),
    "truncated image": ("--image_path {f}/cut.png", ["cut.png cannot be read"]),
    "missing mask": ("--mask_path {f}/none.png", ["mask", "none.png does not exist"]),
    "mask of another size": ("--mask_path {f}/small.png", ["small.png is 10 x 10", "64 x 48", "from the same picture"]),
    "black mask": ("--mask_path {f}/black.png", ["black.png is empty"]),
    "transparent mask": ("--mask_path {f}/clear.png", ["clear.png is empty"]),
    "mask of one pixel": ("--mask_path {f}/dot.png", ["1 x 1 pixels"]),
    "colour picture as a mask": ("--mask_path {f}/colour.png", ["colour.png is a colour picture", "RGBA"]),
    "not a mask": ("--mask_path {f}/text.png", ["text.png is not an image"]),
    "mask index too large": ("--mask_index 9", ["no mask 9.png", "0, 1, 2"]),
    "mask index negative": ("--mask_index -1", ["mask_index is -1", "from 0"]),
    "mask index no number": ("--mask_index one", ["--mask_index", "'one' is not a whole number"]),
    "missing point map": ("--pointmap {f}/no.npy", ["no point map", "no.npy"]),
    "flat point map": ("--pointmap {f}/flat.npy", ["flat.npy", "(height, width, 3)"]),
    "point map of another shape": ("--pointmap {f}/wide.npy", ["wide.npy", "64 x 10"]),
    "unknown point map": ("--pointmap {f}/unknown.npy", ["no finite point"]),
    "pickled point map": ("--pointmap {f}/objects.npy", ["objects.npy cannot be read"]),
    "point map is text": ("--pointmap {f}/text.npy", ["text.npy cannot be read"]),
    "unknown preset": ("acceleration=papr", ["unknown preset acceleration=papr", "paper"]),
    "missing preset file": ("acceleration={f}/none.yaml", ["none.yaml"]),
    "preset file with an unknown key": ("acceleration={f}/preset.yaml", ["strid", "step_caching.stride"]),
    "unknown model": ("model=sam3", ["unknown model model=sam3", "sam3d"]),
    "unknown flag": ("--ss_cache_strid 3", ["unknown flag --ss_cache_strid", "--ss_cache_stride"]),
    "unknown flag with a value": ("--sed=3", ["unknown flag --sed", "--seed"]),
    "flag without its value": ("--seed", ["--seed", "expected one argument"]),
    "unknown key": ("sed=3", ["unknown key 'sed'", "seed"]),
    "unknown group": ("acceleration.stepcaching.stride=3", ["stepcaching", "step_caching"]),
    "unknown key of a group": ("acceleration.step_caching.strid=3", ["strid", "step_caching.stride"]),
    "last part of a key": ("stride=3", ["unknown key 'stride'", "acceleration.step_caching.stride"]),
    "size of a model": ("model.ss_generator.num_blocks=3", ["cannot be changed", "model.ss_sampler"]),
    "stray word": ("paper", ["'paper' is neither a flag nor key=value"]),
    "several values": ("seed=1,2", ["several values"]),
    "unreadable value": ("seed=(1", ["cannot be read", "quotes"]),
    "stride zero": ("--enable_ss_cache --ss_cache_stride 0", ["--ss_cache_stride", "out of range", "1 to 50"]),
    "stride negative": ("--enable_ss_cache --ss_cache_stride -3", ["--ss_cache_stride", "out of range"]),
    "stride of a preset that is off": ("--ss_cache_stride 0", ["--ss_cache_stride", "out of range"]),
    "stride no number": ("--ss_cache_stride x", ["--ss_cache_stride", "'x' is not a whole number"]),
    "fraction of a stride": ("acceleration.step_caching.stride=2.5", ["step_caching.stride", "whole number"]),
    "order too large": ("--ss_order 7", ["--ss_order", "out of range", "0 to 2"]),
    "beta too large": ("--ss_momentum_beta 1.5", ["--ss_momentum_beta", "0.0 to 1.0"]),
    "beta not a number": ("--ss_momentum_beta nan", ["--ss_momentum_beta", "not a finite number"]),
    "threshold infinite": ("--slat_thresh inf", ["--slat_thresh", "not a finite number"]),
    "threshold negative": ("--slat_thresh -1", ["--slat_thresh", "out of range"]),
    "nothing kept": ("--slat_carving_ratio 1.0", ["--slat_carving_ratio", "0.0 to 0.95"]),
    "thresholds swapped": (
        "--mesh_spectral_threshold_low 0.8 --mesh_spectral_threshold_high 0.2",
        ["threshold_low", "threshold_high"],
    ),
    "key not a number": ("acceleration.adaptive_caching.threshold=nan", ["adaptive_caching.threshold", "finite"]),
    "switch no switch": ("acceleration.token_carving.enabled=maybe", ["token_carving.enabled", "true or false"]),
    "two techniques for one network": (
        "acceleration=balanced acceleration.latent_step_caching.enabled=true",
        ["latent_multistep", "latent_step_caching"],
    ),
    "seed negative": ("--seed -1", ["seed is -1", "from 0"]),
    "seed not whole": ("seed=1.5", ["seed is 1.5", "whole number"]),
    "seed too large": ("seed=1e30", ["seed", "whole number"]),
    "no steps": ("model.ss_sampler.inference_steps=0", ["inference_steps is 0", "1 to 1000"]),
    "guidance not a number": ("model.slat_sampler.strength=nan", ["strength", "from 0.0"]),
    "interval of one": ("model.slat_sampler.interval=[5]", ["interval", "two numbers"]),
    "unknown format": ("formats=[obj]", ["formats", "[mesh]"]),
    "unknown precision": ("precision=fp8", ["precision=fp8", "bfloat16"]),
    "preview no switch": ("preview=7", ["preview=7", "true or false"]),
    "name with a folder": ("name=a/b", ["name=a/b is no file name", "output_dir"]),
    "unknown device": ("device=gpu", ["'gpu' is not a device", "cuda"]),
    "device of another kind": ("device=mps", ["device mps is not supported", "cpu"]),
    "output is empty": ("--output_dir=", ["--output_dir is empty"]),
    "texture too large": ("--texture 100000", ["texture is 100000", "from 16 to 8192"]),
    "mask is a folder": ("--mask_path {f}", ["is a folder"]),
    "mask is text": ("--mask_path {f}/text.npy", ["text.npy cannot be read as an array", "numpy.save"]),
    "output is a file": ("--output_dir {f}/file", ["cannot write", "/file", "--output_dir"]),
    "output below a file": ("--output_dir {f}/file/deeper", ["cannot write", "file/deeper", "--output_dir"]),
    "output is nowhere": ("--output_dir /proc/here", ["cannot write", "/proc/here"]),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_a_line_and_leaves_nothing(case, run, folder, tmp_path):
    words, expected = CASES[case]
    broken_files(folder)
    out = tmp_path / "out"
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    given = words.format(f=folder).split()
    base = [] if given[0] == "--image_path" else ["--image_path", folder / "image.png"]
    base += [] if any(word.startswith("--output_dir") for word in given) else ["--output_dir", out]
    code, stdout, stderr = run("infer", *base, *given)
    assert code == 2
    assert stdout == ""
    lines = stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert len(lines) <= 2, stderr
    assert "Traceback" not in stderr
    for part in expected:
        assert part in stderr, stderr
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_a_denied_permission_is_a_line(run, folder, tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "closed"))

    monkeypatch.setattr("fastsam3d.meshes.preview.preview_sheet", denied)
    code, _, stderr = run("infer", "--image_path", folder, "--output_dir", tmp_path / "o", "preview=true")
    assert code == 2 and stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'closed'} may not be used by you")


@pytest.mark.parametrize("place", ["preview.preview_sheet", "writing.export_mesh"])
def test_a_full_disk_is_a_line_and_leaves_nothing(place, run, folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"fastsam3d.meshes.{place}", full)
    code, _, stderr = run("infer", "--image_path", folder, "--output_dir", tmp_path / "o", "preview=true")
    assert code == 2 and stderr.startswith("error: the disk is full (No space left on device)")
    assert not (tmp_path / "o").exists()


def test_a_scene_that_cannot_keep_its_first_object_leaves_nothing(run, folder, tmp_path, monkeypatch):
    def full(*_):
        raise UserError("object_0.safetensors cannot be written: No space left on device.")

    monkeypatch.setattr("fastsam3d.sam3d.scene.storage.save_reconstruction", full)
    code, _, stderr = run("scene", "--image_dir", folder, "--output_dir", tmp_path / "o", "--batch", "1")
    assert code == 2 and "No space left" in stderr
    assert not (tmp_path / "o").exists()


def test_messages_call_files_by_their_own_names(tmp_path):
    with pytest.raises(UserError) as caught, OutputFolder(tmp_path / "o") as results:
        raise UserError(f"{results / 'a.glb'} cannot be written.")
    assert str(caught.value) == f"{tmp_path / 'o' / 'a.glb'} cannot be written."


@pytest.mark.parametrize(
    ("verb", "words", "expected"),
    [
        ("infer", ["batch=2", "preview=false"], "batch changes nothing here: it is for infer_scene."),
        ("infer", ["--mask_path", "{f}/2.png", "--mask_index", "1"], "mask_index changes nothing"),
    ],
)
def test_settings_that_are_not_looked_at_are_warned_of(verb, words, expected, run, folder, tmp_path):
    words = [word.format(f=folder) for word in words]
    code, _, stderr = run(verb, "--image_path", folder, "--output_dir", tmp_path / "o", *words, "--export", "GLB")
    assert code == 0 and f"warning: {expected}" in stderr


def test_picture_without_any_mask(run, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.jpg")
    code, _, stderr = run("infer", "--image_path", tmp_path / "photo.jpg", "--output_dir", tmp_path / "o")
    assert code == 2
    assert "no mask for" in stderr and "--mask_path" in stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the CUDA device whose absence is tested")
def test_cuda_asked_for_and_absent(run, folder, tmp_path):
    code, _, stderr = run("infer", "--image_path", folder, "--output_dir", tmp_path / "o", "device=cuda")
    assert code == 2
    assert "cuda" in stderr and "device=cpu" in stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["checkpoint_dir=/nowhere"], "/nowhere does not exist"),
        (["model=sam3d"], "checkpoint_dir"),
    ],
)
def test_unknown_checkpoint(words, expected, folder, tmp_path, capsys):
    """With the real loader, before anything large is built."""
    code = main(["infer", "--image_path", str(folder), "--output_dir", str(tmp_path / "o"), "device=cpu", *words])
    stderr = capsys.readouterr().err
    assert code == 2
    assert expected in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["infr"], "unknown verb 'infr'. Did you mean infer?"),
        (["presets", "balance"], "unknown preset 'balance'. Did you mean balanced or balanced_12?"),
        (["presets", "--key"], "presets takes"),
        (["scene", "--image_dir", "/nowhere"], "/nowhere is no folder"),
        (["scene", "--mask_path", "x.png"], "--mask_path is a flag of infer only"),
        (["infer", "--resume"], "--resume is a flag of infer_scene only"),
        (["bench", "object=3"], "object"),
        (["train", "minute=3"], "minutes"),
    ],
)
def test_verbs_refuse_what_they_do_not_know(words, expected, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err
    assert len(captured.err.splitlines()) == 1
