"""The networks of TRELLIS.2, tiny: plain blocks with rotary positions, a token a voxel, decoders that subdivide."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from fastsam3d.modules.sparse_tensor import SparseIndex
from host_stand_ins.networks import CONDITION, HEADS, LATENT, WIDTH, attention, embedded, feed_forward
from host_stand_ins.sparse import HeadNorm

CHANNELS = 4
"""Of a shape latent, and of a texture latent."""
NARROW = 8
"""Channels of the decoders."""


class SparseTensor:
    """Values at voxels. `replace` and arithmetic hand on the coordinates and one cache; a new tensor has its own."""

    def __init__(self, feats, coords, cache=None):
        self.feats, self.coords = feats, coords
        self._cache = {} if cache is None else cache

    @property
    def layout(self):
        if "layout" not in self._cache:
            ends = torch.bincount(self.coords[:, 0].long()).cumsum(0).tolist()
            self._cache["layout"] = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        return self._cache["layout"]

    @property
    def shape(self):
        return torch.Size([len(self.layout), *self.feats.shape[1:]])

    @property
    def device(self):
        return self.feats.device

    def replace(self, feats):
        return SparseTensor(feats, self.coords, self._cache)

    def get_spatial_cache(self, name=None):
        return self._cache if name is None else self._cache.get(name)

    def register_spatial_cache(self, name, value):
        self._cache[name] = value

    def type(self, dtype):
        return self.replace(self.feats.type(dtype))

    def std(self, dim, keepdim):
        assert keepdim
        return torch.stack([self.feats[part].std(correction=0) for part in self.layout])[:, None]

    def _with(self, other, function):
        if isinstance(other, SparseTensor):
            other = other.feats
        elif isinstance(other, torch.Tensor) and other.dim() == 2 and len(other) == len(self.layout):
            other = other[self.coords[:, 0].long()]
        return self.replace(function(self.feats, other))

    def __add__(self, other):
        return self._with(other, torch.add)

    def __sub__(self, other):
        return self._with(other, torch.sub)

    def __mul__(self, other):
        return self._with(other, torch.mul)

    def __truediv__(self, other):
        return self._with(other, torch.div)

    __radd__, __rmul__ = __add__, __mul__


class Linear(nn.Linear):
    def forward(self, x):
        return x.replace(super().forward(x.feats))


def phases_of(coords, width):
    """Turns by voxel `[N, width / 2]`, of all three axes one after the other."""
    count = width // 6
    frequencies = 1.0 / 10000.0 ** (torch.arange(count) / max(count, 1))
    turns = torch.outer(coords.reshape(-1).float(), frequencies).reshape(len(coords), -1)
    turns = F.pad(turns, (0, width // 2 - turns.shape[1]))
    return torch.polar(torch.ones_like(turns), turns)


def turned(x, phases):
    """`[..., N, H, D]` turned pair by pair."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2)) * phases.unsqueeze(-2)
    return torch.view_as_real(pairs).flatten(-2).to(x.dtype)


class Rope(nn.Module):
    """Remembers the phases of a tensor's voxels in the tensor's cache."""

    def __init__(self, width):
        super().__init__()
        self.width, self.made = width, 0

    def forward(self, q, k):
        phases = q.get_spatial_cache("phases")
        if phases is None:
            phases, self.made = phases_of(q.coords[:, 1:], self.width), self.made + 1
            q.register_spatial_cache("phases", phases)
        return q.replace(turned(q.feats, phases)), k.replace(turned(k.feats, phases))


class Attention(nn.Module):
    """Dense or sparse, self or cross; objects of a sparse tensor are packed, and `packed` counts such calls."""

    def __init__(self, context=None, sparse=False, width=WIDTH):
        super().__init__()
        self.num_heads, self.qk_rms_norm, self.is_cross = HEADS, True, context is not None
        self.use_rope, self.attn_mode, self.packed = context is None, "full", 0
        if context is None:
            self.to_qkv = nn.Linear(width, 3 * width)
        else:
            self.to_q, self.to_kv = nn.Linear(width, width), nn.Linear(context, 2 * width)
        self.q_rms_norm, self.k_rms_norm = (HeadNorm(width // HEADS, HEADS) for _ in range(2))
        self.to_out = nn.Linear(width, width)
        if sparse and context is None:
            self.rope = Rope(width // HEADS)

    def forward(self, x, context=None, phases=None):
        values = x if isinstance(x, torch.Tensor) else x.feats
        if self.is_cross:
            q = self.q_rms_norm(self.to_q(values).unflatten(-1, (HEADS, -1)))
            k, v = self.to_kv(context).unflatten(-1, (2, HEADS, -1)).unbind(-3)
            k = self.k_rms_norm(k)
        else:
            q, k, v = self.to_qkv(values).unflatten(-1, (3, HEADS, -1)).unbind(-3)
            q, k = self.q_rms_norm(q), self.k_rms_norm(k)
            if isinstance(x, torch.Tensor):
                q, k = turned(q, phases), turned(k, phases)
            else:
                q, k = (y.feats for y in self.rope(x.replace(q), x.replace(k)))
        if isinstance(x, torch.Tensor):
            return self.to_out(attention(q, k, v))
        self.packed += 1
        own = [(k[part], v[part]) for part in x.layout] if not self.is_cross else list(zip(k, v, strict=True))
        parts = [attention(q[None, p], a[None], b[None])[0] for p, (a, b) in zip(x.layout, own, strict=True)]
        return x.replace(self.to_out(torch.cat(parts)))


class ProjectedAttention(nn.Module):
    """Pixal3D's: attends to the condition's tokens, and adds the condition at the pixel of each token."""

    def __init__(self, inner):
        super().__init__()
        self.cross_attn_block, self.proj_linear = inner, nn.Linear(CONDITION, WIDTH)

    def forward(self, x, context):
        tokens, projected = context if isinstance(context, tuple) else (context["global"], context["proj"])
        out = self.cross_attn_block(x, tokens)
        if isinstance(x, torch.Tensor):
            return out + self.proj_linear(projected)
        return out.replace(out.feats + self.proj_linear(projected.feats))


class Block(nn.Module):
    """One block; a vector of its own is added to the modulation that all blocks share."""

    def __init__(self, sparse, projected):
        super().__init__()
        self.self_attn, cross = Attention(sparse=sparse), Attention(CONDITION, sparse)
        self.cross_attn = ProjectedAttention(cross) if projected else cross
        self.norm2, self.mlp = nn.LayerNorm(WIDTH), feed_forward()
        self.modulation = nn.Parameter(torch.randn(2 * WIDTH) * 0.3)

    def forward(self, x, mod, context, phases=None):
        shift, scale = (self.modulation + mod).type(mod.dtype).chunk(2, dim=1)
        if isinstance(x, torch.Tensor):
            h = F.layer_norm(x, (WIDTH,)) * (1 + scale[:, None]) + shift[:, None]
            x = x + self.self_attn(h, phases=phases)
            x = x + self.cross_attn(self.norm2(x), context)
            return x + self.mlp(F.layer_norm(x, (WIDTH,)))
        x = x + self.self_attn(x.replace(F.layer_norm(x.feats, (WIDTH,))) * (1 + scale) + shift)
        x = x + self.cross_attn(x.replace(self.norm2(x.feats)), context)
        return x + x.replace(self.mlp(F.layer_norm(x.feats, (WIDTH,))))


class FlowNetwork(nn.Module):
    """What both kinds of flow networks have; the blocks in `dtype`, both ends in fp32."""

    def __init__(self, inputs, outputs, resolution, sparse, projected, dtype):
        super().__init__()
        layer = Linear if sparse else nn.Linear
        self.resolution, self.in_channels, self.dtype = resolution, inputs, dtype
        self.input_layer, self.out_layer = layer(inputs, WIDTH), layer(WIDTH, outputs)
        self.adaLN_modulation = nn.Linear(WIDTH, 2 * WIDTH)
        self.blocks = nn.ModuleList(Block(sparse, projected) for _ in range(2)).to(dtype)

    def inputs(self, t, cond):
        mod = self.adaLN_modulation(embedded(t)).type(self.dtype)
        if isinstance(cond, dict):  # blocks see a tuple
            return mod, (cond["global"].type(self.dtype), cond["proj"].type(self.dtype))
        return mod, cond.type(self.dtype)


class StructureFlow(FlowNetwork):
    """One dense latent `[B, 8, r, r, r]`."""

    def __init__(self, projected=False, dtype=torch.float32):
        super().__init__(8, 8, LATENT, False, projected, dtype)
        axis = torch.arange(LATENT)
        places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        self.register_buffer("rope_phases", phases_of(places, WIDTH // HEADS))

    def forward(self, x, t, cond):
        mod, cond = self.inputs(t, cond)
        h = self.input_layer(x.flatten(2).transpose(1, 2)).type(self.dtype)
        for block in self.blocks:
            h = block(h, mod, cond, self.rope_phases)
        h = F.layer_norm(h.type(x.dtype), (WIDTH,))
        return self.out_layer(h).transpose(1, 2).unflatten(2, (LATENT,) * 3)


class LatentFlow(FlowNetwork):
    """A latent at voxels; the texture's is joined to that of the shape."""

    def __init__(self, resolution, texture=False, projected=False, dtype=torch.float32):
        super().__init__(CHANNELS * (1 + texture), CHANNELS, resolution, True, projected, dtype)

    def forward(self, x, t, cond, concat_cond=None):
        joined = x if concat_cond is None else x.replace(torch.cat([x.feats, concat_cond.feats], dim=1))
        mod, cond = self.inputs(t, cond)
        h = self.input_layer(joined).type(self.dtype)
        for block in self.blocks:
            h = block(h, mod, cond)
        h = h.type(x.feats.dtype)
        return self.out_layer(h.replace(F.layer_norm(h.feats, (WIDTH,))))


# --- decoders


class SparseConv3d(nn.Module):
    """Keeps its neighbour table in the cache of its input, and says how many it has built."""

    built = 0

    def __init__(self, inputs, outputs):
        super().__init__()
        self.in_channels, self.kernel_size, self.dilation = inputs, (3, 3, 3), (1, 1, 1)
        self.weight = nn.Parameter(torch.randn(27, inputs, outputs) * 0.3 / inputs**0.5)
        self.calls = self.built = 0

    def forward(self, x):
        self.calls += 1
        table = x.get_spatial_cache("SubMConv3d_neighbor_cache_3x3x3_dilation(1, 1, 1)")
        if table is None:
            table, self.built = SparseIndex(x.coords).neighbours(), self.built + 1
            x.register_spatial_cache("SubMConv3d_neighbor_cache_3x3x3_dilation(1, 1, 1)", table)
        padded = torch.cat([x.feats, x.feats.new_zeros(1, x.feats.shape[1])])
        return x.replace(torch.einsum("nkc,kcd->nd", padded[table], self.weight))


class ToChildren(nn.Module):
    """Channels become children; which of the eight live is told."""

    def forward(self, x, subdivision):
        alive = subdivision.feats.nonzero()
        place = torch.stack([alive[:, 1] // 2**axis % 2 for axis in range(3)], dim=1).to(x.coords.dtype)
        parents = x.coords[alive[:, 0]]
        coords = torch.cat([parents[:, :1], parents[:, 1:] * 2 + place], dim=1)
        return SparseTensor(x.feats.unflatten(1, (8, -1))[alive[:, 0], alive[:, 1]], coords)


class UpBlock(nn.Module):
    """One level up: predicts which children live, or is told."""

    def __init__(self, predicts):
        super().__init__()
        self.conv1, self.conv2 = SparseConv3d(NARROW, 8 * NARROW), SparseConv3d(NARROW, NARROW)
        self.updown, self.predicts = ToChildren(), predicts
        if predicts:
            self.to_subdiv = Linear(NARROW, 8)
            with torch.no_grad():  # one or two children of eight
                self.to_subdiv.bias.copy_(torch.tensor([2.0, *[-1.2] * 7]))

    def forward(self, x, subdiv=None):
        subdiv = self.to_subdiv(x) if self.predicts else subdiv
        alive = subdiv.replace(subdiv.feats > 0)
        h = self.updown(self.conv1(x.replace(F.silu(x.feats))), alive)
        x = self.updown(x.replace(x.feats.repeat_interleave(8, dim=1)), alive)
        h = self.conv2(h.replace(F.silu(F.layer_norm(h.feats, (NARROW,))))) + x
        return (h, subdiv) if self.predicts else h


class NextBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = SparseConv3d(NARROW, NARROW)

    def forward(self, x):
        return x + self.conv(x)


class Decoder(nn.Module):
    """Four levels up."""

    def __init__(self, channels, predicts):
        super().__init__()
        self.from_latent, self.output_layer = Linear(CHANNELS, NARROW), Linear(NARROW, channels)
        levels = [[NextBlock(), UpBlock(predicts)] for _ in range(4)]
        self.blocks = nn.ModuleList(nn.ModuleList(level) for level in [*levels, []])

    def features(self, x, subs=None):
        h, found = self.from_latent(x), []
        for level, blocks in enumerate(self.blocks[:-1]):
            h = blocks[0](h)
            h = blocks[1](h) if subs is None else blocks[1](h, subdiv=subs[level])
            if subs is None:
                h, sub = h
                found.append(sub)
        return self.output_layer(h.replace(F.layer_norm(h.feats, (NARROW,)))), found


class ShapeDecoder(Decoder):
    def __init__(self):
        super().__init__(3, predicts=True)
        self.resolution, self.low_vram = 0, False

    def set_resolution(self, resolution):
        self.resolution = resolution

    def forward(self, x, return_subs=False):
        h, subs = self.features(x)
        vertices = (h.coords[:, 1:] + h.feats.sigmoid()) / self.resolution - 0.5
        return [Mesh(vertices)], subs

    def upsample(self, x, upsample_times):
        h = self.from_latent(x)
        for level, blocks in enumerate(self.blocks):
            if level == upsample_times:
                return h.coords
            h = blocks[0](h)
            h, _ = blocks[1](h)
        return h.coords


class TextureDecoder(Decoder):
    def __init__(self):
        super().__init__(6, predicts=False)

    def forward(self, x, guide_subs=None):
        return self.features(x, guide_subs)[0]


class Mesh:
    def __init__(self, vertices):
        self.vertices, self.faces = vertices, torch.zeros(0, 3, dtype=torch.long)

    def fill_holes(self):
        pass


class MeshWithVoxel(Mesh):
    """A mesh, and the voxels that colour it."""

    def __init__(self, vertices, origin, voxel_size, coords, attrs):
        super().__init__(vertices)
        self.origin, self.voxel_size = torch.tensor(origin), voxel_size
        self.coords, self.attrs = coords, attrs
