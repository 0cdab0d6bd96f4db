"""The Gaussian decoder of the small model: its targets, its training, and what ships."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.meshes.gaussians import Gaussian
from fastsam3d.modules.voxels import split_interior
from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.procedural.objects import make_object
from fastsam3d.sam3d.checkpoints.folder import read_state
from fastsam3d.sam3d.checkpoints.loading import load_pipeline, model_config
from fastsam3d.training.options import GaussianDecoderOptions
from fastsam3d.training.structured_latent import gaussian_decoder
from fastsam3d.training.structured_latent.data import Placement, occupied_voxels
from fastsam3d.training.structured_latent.gaussian_decoder import evaluate, load_trunk, make_decoder, train
from fastsam3d.training.structured_latent.gaussian_targets import INWARD, THICKNESS, gaussian_losses, gaussian_target

pytest.importorskip("scipy", reason="targets need SciPy")
CONFIG = model_config("mini")


@pytest.fixture(scope="module")
def target():
    item = make_object(HELD_OUT_SEED, "mushroom")
    voxels = split_interior(occupied_voxels(item.sdf, CONFIG.resolution))[0][:, 1:]
    return item, gaussian_target(item, Placement(), voxels, make_decoder(CONFIG))


def test_targets_lie_under_the_surface(target):
    item, wanted = target
    seen = wanted.seen
    assert seen.float().mean() > 0.6
    centers, normals, depth = wanted.centers[seen] - 0.5, wanted.normals[seen], INWARD * wanted.spread[seen]
    assert (item.sdf(centers) < 0).float().mean() > 0.98
    # Away from edges and thin parts, the surface lies above each of them as far as it should, along the normal.
    above = centers + depth[:, None] * normals
    on_surface = item.sdf(above).abs() < 0.1 / CONFIG.resolution
    assert on_surface.float().mean() > 0.7
    assert (-item.sdf(centers)[on_surface] / depth[on_surface]).median() == pytest.approx(1, abs=0.05)
    assert torch.allclose(wanted.colors[seen][on_surface], item.color(above[on_surface]), atol=0.05)


def test_targets_of_a_thin_plate_lie_in_its_middle():
    class Plate:
        """|z| <= 0.004, much thinner than the depth of Gaussians."""

        def sdf(self, points):
            return points[:, 2].abs() - 0.004

        def color(self, points):
            return torch.full_like(points, 0.5)

    side = torch.arange(10, 20)
    voxels = torch.stack(torch.meshgrid(side, side, torch.tensor([15, 16]), indexing="ij"), dim=-1).reshape(-1, 3)
    wanted = gaussian_target(Plate(), Placement(), voxels, make_decoder(CONFIG))
    assert wanted.seen.float().mean() > 0.5
    assert (INWARD * wanted.spread[wanted.seen]).min() > 0.004
    assert (wanted.centers[wanted.seen][:, 2] - 0.5).abs().max() < 0.001


def test_losses_of_the_target_itself_are_zero(target):
    _, wanted = target
    nothing = torch.zeros(len(wanted.centers), 1)
    exact = Gaussian(
        wanted.centers,
        ((wanted.colors - 0.5) / 0.28209479177387814)[:, None],
        torch.zeros_like(wanted.centers),
        _rotation_from_z(wanted.normals),
        nothing,
    ).with_scaling(torch.stack([wanted.spread, wanted.spread, torch.full_like(wanted.spread, THICKNESS)], dim=1))
    losses = gaussian_losses(exact, wanted, CONFIG.resolution)
    for name in ("place", "scale", "normal", "color"):
        assert float(losses[name]) < 1e-3, name


def _rotation_from_z(normals: torch.Tensor) -> torch.Tensor:
    """Raw rotations, to which the class adds (1, 0, 0, 0), that turn +z to the normals or their opposites."""
    up = torch.where(normals[:, 2:] < 0, -normals, normals)
    x, y = -up[:, 1] / (1 + up[:, 2]), up[:, 0] / (1 + up[:, 2])
    return torch.stack([torch.zeros_like(x), x, y, torch.zeros_like(x)], dim=1)


@pytest.mark.slow
def test_a_run_that_is_interrupted_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(gaussian_decoder, "cosine_factor", lambda *_, **__: 0.5)  # the schedule knows a run's length
    monkeypatch.setattr(gaussian_decoder, "evaluate", lambda *_: {})

    def run(folder: str, steps: int) -> dict[str, torch.Tensor]:
        train(GaussianDecoderOptions(output=str(tmp_path / folder), steps=steps, batch=1, seed=3))
        state = torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)
        assert state["step"] == steps
        return {**state["model"], **{f"average {name}": value for name, value in state["average"].items()}}

    whole = run("whole", 2)
    first = run("parts", 1)
    second = run("parts", 2)
    assert all(torch.equal(value, second[name]) for name, value in whole.items())
    assert not all(torch.equal(value, first[name]) for name, value in whole.items())


def test_two_sets_of_weights_to_start_from_are_refused(tmp_path):
    both = GaussianDecoderOptions(output=str(tmp_path / "run"), steps=1, trunk=str(_shipped()), start_shipped=True)
    with pytest.raises(UserError, match="give --start-shipped or --trunk"):
        train(both)
    assert not (tmp_path / "run").exists()


def test_a_trunk_of_other_sizes_is_refused(tmp_path):
    assert CONFIG.slat_decoder_gs is not None
    small = dataclasses.replace(CONFIG, slat_decoder_gs=dataclasses.replace(CONFIG.slat_decoder_gs, model_channels=64))
    with pytest.raises(UserError, match="no trunk of these sizes"):
        load_trunk(make_decoder(small), _shipped().with_name("slat_decoder_mesh.safetensors"))
    with pytest.raises(UserError, match="has no Gaussian decoder"):
        make_decoder(dataclasses.replace(CONFIG, slat_decoder_gs=None))


def test_the_decoder_that_ships_puts_gaussians_under_the_surface_of_held_out_objects():
    decoder = make_decoder(CONFIG).eval()
    decoder.load_state_dict(read_state(_shipped()))
    found = evaluate(decoder, count=2)
    assert found["place"] < 0.08 and found["color"] < 0.06 and found["normal"] < 0.15
    assert _shipped().stat().st_size <= 2 * 2**20


def _shipped() -> Path:
    return Path(fastsam3d.__file__).parent / "mini" / "slat_decoder_gs.safetensors"


def test_the_small_model_decodes_gaussians():
    pipeline = load_pipeline("mini")
    item = make_object(HELD_OUT_SEED + 1)
    shell = split_interior(occupied_voxels(item.sdf, CONFIG.resolution))[0]
    with torch.no_grad():
        gaussian = pipeline.models["slat_decoder_gs"](torch.zeros(len(shell), 8), shell)[0]
    assert len(gaussian) == 16 * len(shell) and np.isfinite(gaussian.get_scaling.numpy()).all()
