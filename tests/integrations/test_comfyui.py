"""The ComfyUI nodes in a stand-in of ComfyUI: a whole graph, what is told of unusable inputs, stopping."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_stand_in import ComfyUI, Interrupted, Picture
from PIL import Image
from small_pipeline import picture, small_pipeline

import fastsam3d

FILE = Path(__file__).resolve().parents[2] / "examples" / "integrations" / "comfyui_fastsam3d.py"


@pytest.fixture
def comfy(tmp_path, monkeypatch):
    host = ComfyUI(tmp_path)
    for name, module in host.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    host.load(FILE)
    host.classes["Picture"] = Picture
    image, mask = picture()
    monkeypatch.setattr(Picture, "image", torch.from_numpy(image).float()[None] / 255, raising=False)
    monkeypatch.setattr(Picture, "mask", torch.from_numpy(mask).float()[None], raising=False)
    monkeypatch.setattr(
        "fastsam3d.sam3d.checkpoints.loading.load_pipeline", lambda *_args, **_options: small_pipeline()
    )
    return host


def graph(**changes):
    inputs = {"pipeline": ["2", 0], "image": ["3", 0], "mask": ["3", 1], "mask_marks": "object", "seed": 7, "faces": 0}
    return {
        "1": {"class_type": "FastSAM3DLoad", "inputs": {"model": "mini", "device": "cpu", "memory": "none"}},
        "2": {"class_type": "FastSAM3DAccelerate", "inputs": {"pipeline": ["1", 0], "preset": "balanced"}},
        "3": {"class_type": "Picture", "inputs": {}},
        "4": {"class_type": "FastSAM3DReconstruct", "inputs": inputs | {"filename_prefix": "3d/square"} | changes},
        "5": {"class_type": "FastSAM3DPreview", "inputs": {"object": ["4", 0]}},
    }


def test_a_graph_writes_the_files_that_the_library_writes(comfy, tmp_path):
    shown = comfy.run(graph())
    glb = tmp_path / "output" / "3d" / "square_00001_.glb"
    assert shown["4"]["text"] == [str(glb)]
    assert shown["4"]["3d"] == [{"filename": glb.name, "subfolder": "3d", "type": "output"}]
    assert glb.with_suffix(".ply").is_file()
    image, mask = picture()
    pipeline = small_pipeline()
    with fastsam3d.accelerate(pipeline, "balanced"):
        same = pipeline.run(image, mask, seed=7, formats=("mesh", "gaussian"))
    expected = fastsam3d.export(same, tmp_path / glb.name)  # a file names its mesh after itself
    assert glb.read_bytes() == expected.read_bytes()
    (sheet,) = shown["5"]["images"]
    assert sheet["type"] == "temp"
    assert Image.open(tmp_path / "temp" / sheet["filename"]).width > 100
    assert comfy.bars
    assert all(values[-1][0] == values[-1][1] for values in comfy.bars)


def test_a_second_run_writes_beside_the_first(comfy, tmp_path):
    comfy.run(graph())
    comfy.run(graph())
    names = sorted(path.name for path in (tmp_path / "output" / "3d").glob("*.glb"))
    assert names == ["square_00001_.glb", "square_00002_.glb"]


def test_nodes_leave_a_shared_pipeline_as_it_was(comfy):
    node = {name: comfy.classes[name]() for name in comfy.classes}
    (plain,) = node["FastSAM3DLoad"].load("mini", "cpu", "none")
    (fast,) = node["FastSAM3DAccelerate"].choose(plain, "fast")
    assert plain.preset == "off"
    before = {name: vars(part).copy() for name, part in plain.pipeline.models.items()}
    run = node["FastSAM3DReconstruct"].reconstruct
    rest = (Picture.image, Picture.mask, "object", 0, 0, "a")
    reports = [json.loads(run(each, *rest)["result"][3]) for each in (fast, plain)]
    assert [report["preset"] for report in reports] == ["fast", "off"]
    assert {name: vars(part).keys() for name, part in plain.pipeline.models.items()} == {
        name: part.keys() for name, part in before.items()
    }


def test_a_mask_of_the_background_is_the_other_way_round(comfy):
    run = comfy.classes["FastSAM3DReconstruct"].reconstruct
    convert = run.__globals__["picture_and_mask"]
    pixels, inside = convert(Picture.image, Picture.mask, "object")
    _, other = convert(Picture.image, 1 - Picture.mask, "background")
    image, mask = picture()
    assert np.array_equal(pixels, image)
    assert np.array_equal(inside, mask)
    assert np.array_equal(other, mask)


@pytest.mark.parametrize(
    ("shape", "value", "said"),
    [
        ((1, 64, 64), 0.0, "no mask in the file.*MaskEditor"),
        ((1, 10, 48), 0.0, "48 x 10 pixels, the picture 48 x 48"),
        ((1, 48, 48), 0.0, "marks nothing.*mask_marks=background"),
        ((2, 48, 48), 1.0, "one picture and one mask, not 1 and 2"),
    ],
)
def test_an_unusable_mask_is_told_before_the_run(comfy, monkeypatch, tmp_path, shape, value, said):
    monkeypatch.setattr(Picture, "mask", torch.full(shape, value))
    with pytest.raises(ValueError, match=said):
        comfy.run(graph())
    assert not (tmp_path / "output").exists()


def test_the_user_can_stop_a_run(comfy, tmp_path):
    comfy.stop = True
    with pytest.raises(Interrupted):
        comfy.run(graph())
    assert not (tmp_path / "output").exists()


def test_the_file_is_imported_without_fastsam3d_pytorch_and_comfyui():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('torch' in sys.modules or 'fastsam3d' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(FILE)], check=True, timeout=60)
