"""Point maps from MoGe: the frame, unknown pixels, and what is said when it cannot be used."""

from __future__ import annotations

import importlib.util
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastsam3d.errors import UserError
from fastsam3d.sam3d.depth import camera_frame, load_moge
from fastsam3d.sam3d.pipeline.preprocessing import fronto_parallel_rays

FIELD_OF_VIEW = 50.0


class Plane(nn.Module):
    """Stands in for MoGe: a wall at depth 2 in OpenCV's frame, unknown (infinite) in the top row."""

    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1))
        self.calls: list[dict[str, object]] = []
        self.known = True

    @classmethod
    def from_pretrained(cls, path: str) -> Plane:
        if Path(path).read_bytes() != b"plane":
            raise RuntimeError("invalid load key\nmore")
        return cls()

    def infer(self, image: torch.Tensor, **options: object) -> dict[str, torch.Tensor]:
        self.calls.append({"image": image, **options})
        height, width = image.shape[1:]
        focal = width / 2 / math.tan(math.radians(FIELD_OF_VIEW) / 2)
        u = (torch.arange(width) + 0.5 - width / 2) / focal * 2
        v = (torch.arange(height) + 0.5 - height / 2) / focal * 2
        points = torch.stack(
            [u.expand(height, -1), v.unsqueeze(1).expand(-1, width), torch.full((height, width), 2.0)], dim=-1
        )
        points[0] = torch.inf
        return {"points": points if self.known else torch.full_like(points, torch.inf), "intrinsics": torch.eye(3)}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with MoGe's weights, and a package `moge` that reads them."""
    modules = {name: types.ModuleType(name) for name in ("moge", "moge.model", "moge.model.v1")}
    modules["moge.model.v1"].MoGeModel = Plane  # type: ignore[attr-defined]
    for name, module in modules.items():
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "model.pt").write_bytes(b"plane")
    return tmp_path


def test_points_are_in_the_camera_frame_of_pytorch3d(weights: Path) -> None:
    model = load_moge(weights)
    points = model(np.full((6, 8, 3), 255, dtype=np.uint8))
    assert points.shape == (6, 8, 3)
    assert points.dtype == np.float32
    x, y = fronto_parallel_rays(6, 8, FIELD_OF_VIEW)  # of the plane at depth 1; x left, y up
    np.testing.assert_allclose(points[1:, :, 0], 2 * x.expand(5, -1), rtol=1e-5)
    np.testing.assert_allclose(points[1:, :, 1], 2 * y[1:, None].expand(-1, 8), rtol=1e-5)
    assert (points[1:, :, 2] == 2).all()
    assert points[1, 0, 0] > 0 and points[1, 0, 1] > 0, "the top left pixel is to the left and up"


def test_unknown_points_are_nan_and_the_call_is_upstreams(weights: Path) -> None:
    model = load_moge(weights / "model.pt")
    points = model(np.full((6, 8, 3), 255, dtype=np.uint8))
    assert np.isnan(points[0]).all()
    (call,) = model.model.calls
    assert call["force_projection"] is False
    assert call["use_fp16"] is False
    assert call["image"].shape == (3, 6, 8) and call["image"].max() == 1
    assert not model.model.training


def test_a_picture_without_surface(weights: Path) -> None:
    model = load_moge(weights)
    model.model.known = False
    with pytest.raises(UserError, match="no surface in the picture"):
        model(np.zeros((6, 8, 3), dtype=np.uint8))


def test_what_is_missing_is_said(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"needs depth_model=FILE.*download model=moge"):
        load_moge(None)
    with pytest.raises(UserError, match=r"no file .*other.*download model=moge"):
        load_moge(weights / "other")
    with pytest.raises(UserError, match="'toaster' is not a device"):
        load_moge(weights, "toaster")
    (weights / "model.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"cannot be loaded as a model of MoGe, version 1 \(invalid load key\)"):
        load_moge(weights)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package moge, which is not installed"):
        load_moge(weights)


def wavy_wall(height: int = 30, width: int = 40) -> np.ndarray:
    """Points of a wall with waves in PyTorch3D's frame; a few are unknown."""
    x, y = fronto_parallel_rays(height, width, 70.0)
    depth = 3 + torch.sin(torch.arange(width) / 3).expand(height, -1) + torch.cos(torch.arange(height) / 4)[:, None]
    points = torch.stack([x * depth, y[:, None] * depth, depth], dim=-1)
    points[3:6, 5:20] = torch.nan
    return points.numpy()


@pytest.mark.parametrize(
    ("name", "factors"), [("PyTorch3D", (1, 1, 1)), ("OpenCV", (-1, -1, 1)), ("OpenGL", (-1, 1, -1))]
)
def test_camera_frames_are_recognised(name: str, factors: tuple[int, int, int]) -> None:
    points = wavy_wall() * np.array(factors, dtype=np.float32)
    found = camera_frame(points)
    assert found is not None
    assert found[0] == name
    assert found[2] == factors
    large = np.repeat(np.repeat(points, 20, axis=0), 20, axis=1)
    assert camera_frame(large) == found


def test_unclear_frames_are_not_guessed() -> None:
    points = wavy_wall()
    assert camera_frame(points[:, :, [2, 0, 1]]) is None
    assert camera_frame(np.full((30, 40, 3), np.nan, dtype=np.float32)) is None
    assert camera_frame(np.random.default_rng(0).normal(size=(30, 40, 3))) is None
