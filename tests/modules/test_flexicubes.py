"""Sparse surface extraction against closed forms, mesh topology and a slow dense twin."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
import trimesh

from fastsam3d.modules.flexicubes import CHANNELS, extract_surface
from fastsam3d.modules.flexicubes_tables import CORNERS, EDGES, case_tables, ring_tables


def sphere_voxels(
    resolution: int, radius: float, band: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Voxels within `band` voxels of a sphere, their features, and the voxels further inside."""
    axis = torch.arange(resolution)
    voxels = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    distance = ((voxels + 0.5) / resolution - 0.5).norm(dim=1) - radius
    chosen = voxels[distance.abs() < band / resolution]
    features = torch.zeros(len(chosen), CHANNELS)
    corners = chosen.unsqueeze(1) + torch.tensor(CORNERS)
    exact = (corners / resolution - 0.5).norm(dim=-1) - radius
    features[:, :8] = exact * resolution + 1 / resolution
    return chosen, features, voxels[distance <= -band / resolution]


def dense_surface(coords: torch.Tensor, features: torch.Tensor, resolution: int) -> tuple[np.ndarray, set]:
    """The same function on full grids with loops: vertex per (cube, patch) and quads as cyclic tuples of
    those."""
    n = resolution + 1
    sums, counts = np.zeros((n, n, n, 10)), np.zeros((n, n, n))
    weights = np.zeros((resolution,) * 3 + (21,))
    values = features.double().numpy()
    for voxel, row in zip(coords.tolist(), values, strict=True):
        weights[tuple(voxel)] = row[32:53]
        for c, offset in enumerate(CORNERS):
            key = tuple(v + o for v, o in zip(voxel, offset, strict=True))
            sums[key] += [
                row[c] - 1 / resolution,
                *row[8 + 3 * c : 11 + 3 * c],
                *row[53 + 6 * c : 59 + 6 * c],
            ]
            counts[key] += 1
    corner = np.where(counts[..., None] > 0, sums / np.maximum(counts, 1)[..., None], 0.0)
    corner[counts == 0, 0] = 1.0
    patch_table, _, check_table = case_tables()

    def case(cube: tuple[int, ...]) -> int:
        keys = [tuple(np.add(cube, offset)) for offset in CORNERS]
        return sum(1 << i for i, key in enumerate(keys) if corner[key][0] < 0)

    vertices: dict[tuple, np.ndarray] = {}
    patches = {}
    for cube in np.ndindex(resolution, resolution, resolution):
        number = case(cube)
        if number in (0, 255):
            continue
        step = check_table[number]
        other = tuple(np.add(cube, step))
        if step.any() and all(0 <= o < resolution for o in other) and check_table[case(other)].any():
            number = 255 - number
        patch = patches[cube] = patch_table[number]
        w = weights[cube]
        beta, alpha = 0.99 * np.tanh(w[:12]) + 1, 0.99 * np.tanh(w[12:20]) + 1
        for p in range(patch.max() + 1):
            total, position = 0.0, np.zeros(3)
            for e in np.flatnonzero(patch == p):
                ends = []
                for c in EDGES[e]:
                    key = tuple(np.add(cube, CORNERS[c]))
                    moved = (1 - 1e-8) / (2 * resolution) * np.tanh(corner[key][1:4])
                    ends.append((np.array(key) / resolution - 0.5 + moved, corner[key][0] * alpha[c]))
                (x0, s0), (x1, s1) = ends
                position += beta[e] * (x0 * s1 - x1 * s0) / (s1 - s0)
                total += beta[e]
            vertices[(*cube, p)] = position / total
    quads = set()
    steps, ring_edges = ring_tables()
    for axis in range(3):
        for base in np.ndindex(n, n, n):
            end = list(base)
            end[axis] += 1
            if end[axis] >= n or (corner[base][0] < 0) == (corner[tuple(end)][0] < 0):
                continue
            around = [tuple(np.add(base, s)) for s in steps[axis]]
            if not all(0 <= v < resolution for cube in around for v in cube):
                continue
            quads.add(
                frozenset(
                    (*cube, int(patches[cube][e])) for cube, e in zip(around, ring_edges[axis], strict=True)
                )
            )
    return np.array(list(vertices.values())), quads


def test_case_tables_count_patches() -> None:
    patch_of_edge, counts, check = case_tables()
    assert counts[0] == counts[255] == 0
    # One corner: the three edges at it. Two corners on a face's diagonal: cut off apart. Alternating: four
    # triangles.
    assert np.flatnonzero(patch_of_edge[1] >= 0).tolist() == [0, 3, 8]
    assert counts[1] == 1
    assert counts[0b0110] == 2
    assert counts[0b01101001] == 4
    # The complement of a face's diagonal has one ambiguous face with a single patch: it is checked.
    assert counts[255 - 0b0110] == 1
    assert check[255 - 0b0110].tolist() == [0, 0, -1]
    for case in range(256):
        inside = [bool(case >> c & 1) for c in range(8)]
        crossed = [inside[a] != inside[b] for a, b in EDGES]
        assert ((patch_of_edge[case] >= 0) == crossed).all()
        sizes = Counter(patch_of_edge[case][patch_of_edge[case] >= 0].tolist())
        assert all(3 <= size <= 7 for size in sizes.values())


def test_ring_edges_are_the_grid_edge() -> None:
    steps, edges = ring_tables()
    for axis in range(3):
        for step, edge in zip(steps[axis], edges[axis], strict=True):
            ends = {tuple(np.add(step, CORNERS[c]).tolist()) for c in EDGES[edge]}
            assert ends == {(0, 0, 0), tuple(int(i == axis) for i in range(3))}


def test_sphere_is_closed_round_and_faces_outward() -> None:
    coords, features, interior = sphere_voxels(24, 0.37, 1.3)
    surface = extract_surface(coords, features, 24, interior)
    mesh = trimesh.Trimesh(surface.vertices.numpy(), surface.faces.numpy(), process=False)
    radius = surface.vertices.norm(dim=1)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.body_count == 1
    assert abs(mesh.volume - 4 / 3 * np.pi * 0.37**3) < 0.005
    assert (radius - 0.37).abs().max() < 0.05 / 24
    assert (mesh.face_normals * mesh.triangles_center).sum(1).min() > 0


def test_unknown_interior_gives_an_inner_wall() -> None:
    coords, features, _ = sphere_voxels(24, 0.37, 1.3)
    surface = extract_surface(coords, features, 24)
    mesh = trimesh.Trimesh(surface.vertices.numpy(), surface.faces.numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.body_count == 2


def test_random_fields_equal_the_dense_twin() -> None:
    generator = torch.Generator().manual_seed(3)
    resolution = 7
    cells = torch.randperm(resolution**3, generator=generator)[:150]
    coords = torch.stack([cells // 49, cells // 7 % 7, cells % 7], 1)
    features = torch.randn(150, CHANNELS, generator=generator)
    surface = extract_surface(coords, features, resolution)
    vertices, quads = dense_surface(coords, features, resolution)
    assert len(surface.vertices) == len(vertices)
    assert len(surface.faces) == 2 * len(quads)
    ours = surface.vertices.numpy()
    # Same points in another order: each has its own nearest twin.
    distance, nearest = trimesh.proximity.cKDTree(vertices).query(ours)
    assert distance.max() < 1e-4
    assert len(set(nearest.tolist())) == len(vertices)


def test_random_fields_have_no_edge_with_four_faces() -> None:
    generator = torch.Generator().manual_seed(5)
    axis = torch.arange(8)
    coords = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    corner = torch.randn(9, 9, 9, generator=generator)
    corner[[0, -1]] = corner[:, [0, -1]] = corner[:, :, [0, -1]] = 1.0
    at = coords.unsqueeze(1) + torch.tensor(CORNERS)
    features = torch.zeros(len(coords), CHANNELS)
    features[:, :8] = corner[at[..., 0], at[..., 1], at[..., 2]]
    surface = extract_surface(coords, features, 8)
    mesh = trimesh.Trimesh(surface.vertices.numpy(), surface.faces.numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent


def test_colors_follow_corner_logits() -> None:
    coords, features, interior = sphere_voxels(16, 0.3, 1.8)
    x = (coords[:, :1] + torch.tensor(CORNERS)[:, 0]) / 16 - 0.5
    features[:, 53::6] = torch.logit((0.5 + x).clamp(0.02, 0.98))
    surface = extract_surface(coords, features, 16, interior)
    expected = 0.5 + surface.vertices[:, 0]
    assert (surface.attributes[:, 0] - expected).abs().max() < 0.05
    assert torch.allclose(surface.attributes[:, 1], torch.tensor(0.5))


def test_nothing_inside_gives_no_surface() -> None:
    coords = torch.tensor([[1, 1, 1]])
    features = torch.zeros(1, CHANNELS)
    features[:, :8] = 1.0
    surface = extract_surface(coords, features, 4)
    assert surface.vertices.shape == (0, 3)
    assert surface.faces.shape == (0, 3)
