"""Agreement of outlines and masks in the photo's camera, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.meshes.mesh import Mesh
from fastsam3d.sam3d.pipeline.pose import Pose
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction
from fastsam3d.sam3d.scene.placement import mask_agreement


def square(depth: float) -> Reconstruction:
    """A square of side 1. At depth 2, seen with 90 degrees, it covers the middle quarter of the picture's width."""
    vertices = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], dtype=np.float32)
    mesh = Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]]), np.zeros((4, 3), dtype=np.float32))
    pose = Pose(torch.tensor([1.0, 0, 0, 0]), torch.tensor([0.0, 0, depth]), torch.ones(3))
    return Reconstruction(mesh, pose, structure=None, feats=torch.zeros(0), seed=0)  # type: ignore[arg-type]


def middle(side: int) -> np.ndarray:
    """A mask of 200 x 200 whose middle square of `side` pixels is the object's."""
    mask = np.zeros((200, 200), dtype=bool)
    low, high = 100 - side // 2, 100 + side // 2
    mask[low:high, low:high] = True
    return mask


def agreement(result: Reconstruction, mask: np.ndarray) -> float:
    return mask_agreement({"square": result}, {"square": mask}, 90.0)["square"]


def test_a_square_whose_outline_is_known() -> None:
    result, mask = square(2), middle(50)
    assert agreement(result, mask) == pytest.approx(1.0)
    assert agreement(result, mask & (np.arange(200) < 100)) == pytest.approx(0.5, abs=0.01)
    assert agreement(result, np.roll(mask, 60, axis=0)) == 0.0


def test_a_hidden_part_does_not_count() -> None:
    """A square at depth 4 shows 25 pixels of side; the nearer one at depth 2 hides it whole."""
    masks = {"near": middle(50), "far": np.roll(middle(20), 80, axis=1)}
    found = mask_agreement({"near": square(2), "far": square(4)}, masks, 90.0)
    assert found == {"near": pytest.approx(1.0), "far": 0.0}
    masks = {"near": middle(50) & (np.arange(200) < 100), "far": middle(50) & (np.arange(200) >= 100)}
    found = mask_agreement({"near": square(2), "far": square(4)}, masks, 90.0)
    assert found == {"near": pytest.approx(0.5, abs=0.01), "far": 0.0}


def test_an_object_without_a_surface_agrees_with_nothing() -> None:
    empty = square(2)
    bare = Reconstruction(None, empty.pose, structure=None, feats=torch.zeros(0), seed=0)  # type: ignore[arg-type]
    assert agreement(bare, middle(50)) == 0.0
    assert mask_agreement({}, {}, 90.0) == {}
