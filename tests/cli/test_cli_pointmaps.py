"""The setting `depth` on the command line, and sampler settings of a checkpoint folder."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from fastsam3d.cli.flags import parse
from fastsam3d.cli.settings import request_of
from fastsam3d.jobs.request import as_plain
from fastsam3d.sam3d import depth


@pytest.fixture
def moge(monkeypatch):
    """MoGe sees a slanted wall; what it was loaded with is recorded."""
    calls = []

    def load(weights, device):
        calls.append((weights, device))

        def model(image):
            points = np.ones((*image.shape[:2], 3), dtype=np.float32)
            points[..., 0] = np.linspace(1, -1, image.shape[1])
            points[..., 1] = np.linspace(1, -1, image.shape[0])[:, None]
            return points

        return model

    monkeypatch.setattr(depth, "load_moge", load)
    return calls


def test_moge_is_used_where_no_file_is(run, folder, tmp_path, moge):
    options = ("--image_path", folder, "--output_dir", tmp_path / "o", "--json", "depth=moge", "depth_model=w=1.pt")
    code, stdout, stderr = run("infer", *options)
    assert code == 0, stderr
    report = json.loads(stdout)
    assert report["inputs"]["pointmap"] == "moge"
    assert moge == [("w=1.pt", "cpu")]
    assert "estimating the point map with MoGe" in stderr
    assert report["settings"]["depth"] == "moge"


def test_a_file_wins_over_moge(run, folder, tmp_path, moge):
    points = np.ones((48, 64, 3), dtype=np.float32)
    # OpenCV's frame: x grows to the right, y downwards.
    points[..., 0], points[..., 1] = np.linspace(-1, 1, 64), np.linspace(-1, 1, 48)[:, None]
    np.save(folder / "pointmap.npy", points)
    words = ("--image_path", folder, "--output_dir", tmp_path / "o", "--json", "depth=moge")
    code, stdout, stderr = run("infer", *words)
    assert code == 0
    assert "looks like a point map in OpenCV's camera frame" in stderr and "[-1, -1, 1]" in stderr
    assert json.loads(stdout)["inputs"]["pointmap"].endswith("pointmap.npy")
    assert moge == []


def test_moge_that_is_not_there_is_explained(run, folder, tmp_path):
    code, stdout, stderr = run("infer", "--image_path", folder, "--output_dir", tmp_path / "o", "depth=moge")
    assert code == 2
    assert stdout == ""
    assert "depth=moge needs" in stderr
    assert not (tmp_path / "o").exists()
    code, _, stderr = run("infer", "--image_path", folder, "depth=mogee")
    assert code == 2
    assert "depth=mogee" in stderr and "moge" in stderr


def test_only_given_sampler_settings_replace_those_of_the_checkpoint(monkeypatch):
    """The pipeline's own settings stay, as a pipeline.yaml gives them, and the report shows them."""

    def generator():
        guided = SimpleNamespace(strength=3.0, interval=(0.0, 400.0))
        return SimpleNamespace(inference_steps=7, rescale_t=2.0, reverse_fn=guided)

    models = {"ss_generator": generator(), "slat_generator": generator()}
    monkeypatch.setattr(
        "fastsam3d.sam3d.checkpoints.loading.load_pipeline", lambda model, **options: SimpleNamespace(models=models)
    )
    settings = request_of(parse(["model.ss_sampler.strength=1.5", "model.slat_sampler.interval=[0,600]"], "x"))
    settings.load()
    assert models["ss_generator"].reverse_fn == SimpleNamespace(strength=1.5, interval=(0.0, 400.0))
    assert models["slat_generator"].reverse_fn == SimpleNamespace(strength=3.0, interval=(0, 600))
    assert {models[name].inference_steps for name in models} == {7}
    shown = as_plain(settings)["samplers"]
    assert shown["ss_sampler"].items() >= {"inference_steps": 7, "rescale_t": 2.0, "strength": 1.5}.items()
    assert shown["slat_sampler"]["interval"] == [0, 600]
