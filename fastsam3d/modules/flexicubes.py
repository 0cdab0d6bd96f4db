"""Surface extraction from sparse voxels: FlexiCubes on the occupied sites only (Shen et al. 2023).

The same function as extraction on dense grids that are filled with "outside" wherever no voxel is, without
the grids: corners and cubes are kept as sorted integer ids, and cubes are visited only where an edge changes
sign (docs/facts.md, section S8.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from fastsam3d.modules.flexicubes_tables import CORNERS, EDGES, case_tables, ring_tables

CHANNELS = 101
"""Per voxel: 8 signed distances, 8 x 3 corner offsets, 21 weights, 8 x 6 colours and normals."""


@dataclass(frozen=True)
class Surface:
    """A triangle mesh.

    Attributes:
        vertices: `[V, 3]`, grid frame, about -0.5..0.5.
        faces: `[F, 3]` int64, counter-clockwise seen from outside.
        attributes: `[V, 6]`, colour and normal features, 0..1.
    """

    vertices: Tensor
    faces: Tensor
    attributes: Tensor


@dataclass(frozen=True)
class _Corners:
    """Known corners, sorted by id, and one last row for all others."""

    ids: Tensor
    sdf: Tensor
    deform: Tensor
    attributes: Tensor

    def rows(self, wanted: Tensor) -> Tensor:
        """Row of each wanted id; the last row if it is not known."""
        position = torch.searchsorted(self.ids, wanted).clamp_(max=len(self.ids) - 1)
        return torch.where(self.ids[position] == wanted, position, len(self.ids))


def extract_surface(
    coords: Tensor, features: Tensor, resolution: int, interior_coords: Tensor | None = None
) -> Surface:
    """Extracts the zero level of the signed distances of one object's voxels.

    Args:
        coords: unique voxels `[M, 3]`, integers in 0..resolution-1.
        features: `[M, 101]`, the mesh decoder's output.
        resolution: voxels along the side of the grid.
        interior_coords: voxels `[K, 3]` of the same grid known to be inside; their corners that belong to no
            voxel of `coords` count as inside. Without it every unknown corner counts as outside, so that a
            band of voxels gets a second, inner wall.

    Returns:
        The surface; without vertices if no distance is negative.

    Raises:
        ValueError: shapes do not fit.
    """
    if features.shape != (len(coords), CHANNELS):
        raise ValueError(f"features must be [{len(coords)}, {CHANNELS}], not {list(features.shape)}")
    side = resolution + 1
    strides = torch.tensor([side * side, side, 1], device=coords.device)
    features = features.float()
    voxels = (coords.long() * strides).sum(1)
    corners = _average_corners(voxels, features, strides, 1.0 / resolution)
    if interior_coords is not None and len(interior_coords) and len(coords):
        corners = _add_interior(corners, interior_coords.long(), strides)
    base, axis, begins_inside = _sign_changes(corners, strides, side)
    steps, ring_edges = (torch.from_numpy(t).to(coords.device) for t in ring_tables())
    ring = _unlinear(base, strides, side).unsqueeze(1) + steps[axis]
    within = ((ring >= 0) & (ring < resolution)).all(-1)
    ring_ids = (ring * strides).sum(-1)
    cubes, inverse = torch.unique(ring_ids[within], return_inverse=True)
    if not len(cubes):
        empty = features.new_zeros
        return Surface(empty(0, 3), torch.zeros(0, 3, dtype=torch.int64, device=coords.device), empty(0, 6))

    weights = _cube_weights(cubes, voxels, features[:, 32:53])
    rows = corners.rows(cubes.unsqueeze(1) + (cubes.new_tensor(CORNERS) * strides).sum(1))
    patch_of_edge, patches = _cases(cubes, corners.sdf[rows] < 0, strides, resolution)
    positions = _corner_positions(cubes, rows, corners, strides, side, resolution)
    vertices, attributes = _dual_vertices(
        positions, corners.sdf[rows], corners.attributes[rows], weights, patch_of_edge, patches
    )
    # One quad per sign-changing edge with all four cubes inside the grid.
    cube_of = torch.zeros_like(ring_ids)
    cube_of[within] = inverse
    complete = within.all(1)
    cube_of, axis, begins_inside = cube_of[complete], axis[complete], begins_inside[complete]
    first = patches.cumsum(0) - patches
    quads = first[cube_of] + patch_of_edge[cube_of, ring_edges[axis]]
    gamma = (0.99 * torch.sigmoid(weights[:, 20]) + 0.005)[cube_of]
    return Surface(vertices, _split_quads(quads, gamma, axis, begins_inside), attributes)


def _average_corners(voxels: Tensor, features: Tensor, strides: Tensor, bias: float) -> _Corners:
    """Mean over the voxels that share a corner; sdf is lowered by `bias`; last row: outside."""
    ids = voxels.unsqueeze(1) + (voxels.new_tensor(CORNERS) * strides).sum(1)
    unique, inverse, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    values = torch.cat(
        [
            features[:, :8].unsqueeze(2) - bias,
            rearrange(features[:, 8:32], "voxel (corner xyz) -> voxel corner xyz", xyz=3),
            rearrange(features[:, 53:101], "voxel (corner attribute) -> voxel corner attribute", attribute=6),
        ],
        dim=2,
    )
    # The last row is what an unknown corner gets: outside, not moved, middle grey.
    total = values.new_zeros(len(unique) + 1, 10).index_add_(0, inverse.flatten(), values.flatten(0, 1))
    total[:-1] /= counts.unsqueeze(1)
    total[-1, 0] = 1.0
    return _Corners(unique, total[:, 0], total[:, 1:4], torch.sigmoid(total[:, 4:]))


def _add_interior(corners: _Corners, interior: Tensor, strides: Tensor) -> _Corners:
    """Adds the interior voxels' corners that no voxel knows, with sdf -1."""
    ids = torch.unique(
        (interior * strides).sum(1).unsqueeze(1) + (strides.new_tensor(CORNERS) * strides).sum(1)
    )
    ids = ids[corners.rows(ids) == len(corners.ids)]
    merged, order = torch.cat([corners.ids, ids]).sort()
    order = torch.where(order < len(corners.ids), order, len(corners.ids))
    order = torch.cat([order, order.new_tensor([len(corners.ids)])])
    sdf = corners.sdf[order]
    is_interior = order[:-1] == len(corners.ids)
    sdf[:-1][is_interior] = -1.0
    return _Corners(merged, sdf, corners.deform[order], corners.attributes[order])


def _unlinear(ids: Tensor, strides: Tensor, side: int) -> Tensor:
    return (ids.unsqueeze(-1) // strides) % side


def _sign_changes(corners: _Corners, strides: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Edges with one inside end: first corner's id, axis, and whether the first corner is the inside one."""
    inside = corners.sdf < 0
    ids = corners.ids[inside[:-1]]
    position = _unlinear(ids, strides, side)
    parts = []
    for axis in range(3):
        stride = strides[axis]
        for direction in (1, -1):
            limit = side - 1 if direction > 0 else 0
            candidates = ids[position[:, axis] != limit]
            other = candidates + direction * stride
            crossing = ~inside[corners.rows(other)]
            base = candidates[crossing] if direction > 0 else other[crossing]
            parts.append((base, torch.full_like(base, axis), torch.full_like(base, direction) > 0))
    bases, axes, begins = (torch.cat(column) for column in zip(*parts, strict=True))
    return bases, axes, begins


def _cube_weights(cubes: Tensor, voxels: Tensor, weights: Tensor) -> Tensor:
    """Raw weights of cubes `[S, 21]`; zero for cubes that are not voxels."""
    ordered, order = voxels.sort()
    position = torch.searchsorted(ordered, cubes).clamp_(max=len(voxels) - 1)
    known = ordered[position] == cubes
    return torch.where(known.unsqueeze(1), weights[order[position]], 0.0)


def _cases(cubes: Tensor, inside: Tensor, strides: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Patch of each edge `[S, 12]` and number of patches `[S]`."""
    patch_table, count_table, check_table = (torch.from_numpy(t).to(cubes.device) for t in case_tables())
    case = (inside.long() << torch.arange(8, device=cubes.device)).sum(1)
    step = check_table[case]
    suspect = torch.nonzero(step.any(1)).squeeze(1)
    neighbour = _unlinear(cubes[suspect], strides, resolution + 1) + step[suspect]
    within = ((neighbour >= 0) & (neighbour < resolution)).all(1)
    suspect, neighbour = suspect[within], (neighbour[within] * strides).sum(1)
    if len(suspect):
        # A neighbour across an ambiguous face is a surface cube as well, so it is in the sorted list.
        position = torch.searchsorted(cubes, neighbour).clamp_(max=len(cubes) - 1)
        both = (cubes[position] == neighbour) & step[position].any(1)
        case[suspect[both]] = 255 - case[suspect[both]]
    return patch_table[case], count_table[case]


def _corner_positions(
    cubes: Tensor, rows: Tensor, corners: _Corners, strides: Tensor, side: int, resolution: int
) -> Tensor:
    """Positions of the moved corners of cubes `[S, 8, 3]`."""
    integer = _unlinear(cubes, strides, side).unsqueeze(1) + cubes.new_tensor(CORNERS)
    moved = (1 - 1e-8) / (2 * resolution) * torch.tanh(corners.deform)
    return integer / resolution - 0.5 + moved[rows]


def _dual_vertices(
    positions: Tensor,
    sdf: Tensor,
    attributes: Tensor,
    weights: Tensor,
    patch_of_edge: Tensor,
    patches: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weighted means of crossed-edge points, one per patch: positions `[V, 3]` and attributes `[V, 6]`."""
    beta = 0.99 * torch.tanh(weights[:, :12]) + 1
    alpha = 0.99 * torch.tanh(weights[:, 12:20]) + 1
    values = torch.cat([positions, attributes], dim=2)
    first, second = torch.tensor(EDGES, device=sdf.device).unbind(1)
    weighted = sdf * alpha
    s0, s1 = weighted[:, first], weighted[:, second]
    crossed = patch_of_edge >= 0
    # Edges that are not crossed divide by one instead of by anything near zero; their weight is zero below.
    denominator = torch.where(crossed, s1 - s0, 1.0)
    w0, w1 = s1 / denominator, -s0 / denominator
    points = values[:, first] * w0.unsqueeze(2) + values[:, second] * w1.unsqueeze(2)
    owner = torch.repeat_interleave(torch.arange(len(patches), device=sdf.device), patches)
    patch = torch.arange(len(owner), device=sdf.device) - (patches.cumsum(0) - patches)[owner]
    weight = torch.where(patch_of_edge[owner] == patch.unsqueeze(1), beta[owner], 0.0)
    weight = weight / weight.sum(1, keepdim=True)
    result = torch.einsum("ve,vec->vc", weight, points[owner])
    return result[:, :3], result[:, 3:]


def _split_quads(quads: Tensor, gamma: Tensor, axis: Tensor, begins_inside: Tensor) -> Tensor:
    """Two triangles per quad, cut along the diagonal whose cubes have the larger product of gamma.

    Where none of the four cubes is a voxel, all gammas are one half. The official extraction then takes the
    diagonal on which its ring of cubes does not begin; it begins elsewhere about edges along y.
    """
    quads = torch.where(begins_inside.unsqueeze(1), quads, quads.flip(1))
    gamma = torch.where(begins_inside.unsqueeze(1), gamma, gamma.flip(1))
    first, second = gamma[:, 0] * gamma[:, 2], gamma[:, 1] * gamma[:, 3]
    even = (first > second) | ((first == second) & (axis != 1))
    along_02 = quads[:, [0, 1, 2, 0, 2, 3]]
    along_13 = quads[:, [0, 1, 3, 3, 1, 2]]
    return torch.where(even.unsqueeze(1), along_02, along_13).reshape(-1, 3)
