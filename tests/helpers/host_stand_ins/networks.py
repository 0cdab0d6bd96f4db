"""The networks of both pipelines, tiny, with the parts where the hosts expect them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from host_stand_ins.sparse import (
    Downsample,
    HeadNorm,
    Linear,
    SparseAttention,
    SparseConvolution,
    SparseTensor,
    Upsample,
)

WIDTH, HEADS, IO, CONDITION = 16, 2, 8, 16
GRID, LATENT = 16, 4
"""Voxels along the side of the structure grid, and of its latent."""


def embedded(t, width=WIDTH):
    phase = t.reshape(-1, 1).float() / 1000 * torch.arange(1, width // 2 + 1) * 2
    return torch.cat([phase.cos(), phase.sin()], dim=1)


class DenseAttention(nn.Module):
    def __init__(self, context=None, norm=False):
        super().__init__()
        self.num_heads, self.qk_rms_norm, self.is_cross = HEADS, norm, context is not None
        if context is None:
            self.to_qkv = nn.Linear(WIDTH, 3 * WIDTH)
        else:
            self.to_q, self.to_kv = nn.Linear(WIDTH, WIDTH), nn.Linear(context, 2 * WIDTH)
        if norm:
            self.q_rms_norm, self.k_rms_norm = (HeadNorm(WIDTH // HEADS, HEADS) for _ in range(2))
        self.to_out = nn.Linear(WIDTH, WIDTH)

    def project(self, x):
        q, k, v = self.to_qkv(x).unflatten(-1, (3, HEADS, -1)).unbind(2)
        return (self.q_rms_norm(q), self.k_rms_norm(k), v) if self.qk_rms_norm else (q, k, v)

    def forward(self, x, context=None):
        if self.is_cross:
            q = self.to_q(x).unflatten(-1, (HEADS, -1))
            k, v = self.to_kv(context).unflatten(-1, (2, HEADS, -1)).unbind(2)
        else:
            q, k, v = self.project(x)
        return self.to_out(attention(q, k, v))


def attention(q, k, v):
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2).flatten(2)


class TwoStreamAttention(nn.Module):
    """`shape` sees itself, the other stream sees both."""

    def __init__(self, names):
        super().__init__()
        self.parts = nn.ModuleDict({name: DenseAttention(norm=True) for name in names})

    def forward(self, x):
        qkv = {name: part.project(x[name]) for name, part in self.parts.items()}
        out = {}
        for name, part in self.parts.items():
            q, k, v = qkv[name]
            if name != "shape":
                k, v = torch.cat([k, qkv["shape"][1]], 1), torch.cat([v, qkv["shape"][2]], 1)
            out[name] = part.to_out(attention(q, k, v))
        return out


def feed_forward():
    return nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(approximate="tanh"), nn.Linear(2 * WIDTH, WIDTH))


class TwoStreamBlock(nn.Module):
    def __init__(self, names):
        super().__init__()
        self.self_attn = TwoStreamAttention(names)
        self.cross_attn = nn.ModuleDict({name: DenseAttention(CONDITION) for name in names})
        self.mlp = nn.ModuleDict({name: feed_forward() for name in names})
        self.adaLN_modulation = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x, mod, context):
        shift, scale = self.adaLN_modulation(mod)[:, None].chunk(2, dim=-1)
        h = self.self_attn({k: F.layer_norm(v, (WIDTH,)) * (1 + scale) + shift for k, v in x.items()})
        x = {k: v + h[k] for k, v in x.items()}
        x = {k: v + self.cross_attn[k](F.layer_norm(v, (WIDTH,)), context) for k, v in x.items()}
        return {k: v + self.mlp[k](F.layer_norm(v, (WIDTH,))) for k, v in x.items()}


class Modality(nn.Module):
    def __init__(self, tokens, channels):
        super().__init__()
        self.input_layer, self.out_layer = nn.Linear(channels, WIDTH), nn.Linear(WIDTH, channels)
        self.pos_emb = nn.Parameter(torch.randn(tokens, WIDTH))


class StructureNetwork(nn.Module):
    """Five latents in two streams; its condition, multiplied by zero with `cfg`; a step size `d` that is embedded."""

    def __init__(self):
        super().__init__()
        shapes = {
            "6drotation_normalized": (1, 6),
            "scale": (1, 3),
            "shape": (LATENT**3, 8),
            "translation": (1, 3),
            "translation_scale": (1, 1),
        }
        self.latent_mapping = nn.ModuleDict({name: Modality(*shape) for name, shape in shapes.items()})
        self.poses = [name for name in shapes if name != "shape"]
        self.blocks = nn.ModuleList(TwoStreamBlock(["shape", self.poses[0]]) for _ in range(2))
        self.t_embedder, self.d_embedder = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.force_zeros_cond = True

    def forward(self, latents, t, *condition, **kwargs):
        d, zeroed = kwargs.pop("d"), kwargs.pop("cfg", False)
        cond = condition[0] * 0 if zeroed else condition[0]
        mod = self.t_embedder(embedded(t)) + self.d_embedder(embedded(d))
        tokens = {k: m.input_layer(latents[k]) + m.pos_emb for k, m in self.latent_mapping.items()}
        h = {self.poses[0]: torch.cat([tokens[k] for k in self.poses], 1), "shape": tokens["shape"]}
        for block in self.blocks:
            h = block(h, mod, cond)
        parts = dict(zip(self.poses, h[self.poses[0]].split(1, dim=1), strict=True)) | {"shape": h["shape"]}
        return {k: m.out_layer(F.layer_norm(parts[k], (WIDTH,))) for k, m in self.latent_mapping.items()}


class DenseBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.cross_attn = DenseAttention(norm=True), DenseAttention(CONDITION)
        self.mlp, self.adaLN_modulation = feed_forward(), nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x, mod, context):
        shift, scale = self.adaLN_modulation(mod)[:, None].chunk(2, dim=-1)
        x = x + self.self_attn(F.layer_norm(x, (WIDTH,)) * (1 + scale) + shift)
        x = x + self.cross_attn(F.layer_norm(x, (WIDTH,)), context)
        return x + self.mlp(F.layer_norm(x, (WIDTH,)))


class DenseStructureNetwork(nn.Module):
    """One dense latent `[B, 8, r, r, r]`; the caller brings zeros for the unconditional pass."""

    def __init__(self):
        super().__init__()
        self.resolution, self.in_channels = LATENT, 8
        self.input_layer, self.out_layer = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 8)
        self.pos_emb = nn.Parameter(torch.randn(LATENT**3, WIDTH))
        self.blocks = nn.ModuleList(DenseBlock() for _ in range(2))
        self.t_embedder = nn.Linear(WIDTH, WIDTH)

    @property
    def device(self):
        return self.pos_emb.device

    def forward(self, x, t, cond):
        h = self.input_layer(x.flatten(2).transpose(1, 2)) + self.pos_emb
        mod = self.t_embedder(embedded(t))
        for block in self.blocks:
            h = block(h, mod, cond)
        return self.out_layer(F.layer_norm(h, (WIDTH,))).transpose(1, 2).unflatten(2, (LATENT,) * 3)


def of_each(x, values):
    """Values of each object at its voxels."""
    return values if len(values) == 1 else values[x.coords[:, 0].long()]


class ResidualBlock(nn.Module):
    def __init__(self, channels, out_channels, down=False, up=False):
        super().__init__()
        self.downsample, self.upsample = down, up
        self.updown = Downsample() if down else Upsample() if up else None
        self.conv1 = SparseConvolution(channels, out_channels)
        self.conv2 = SparseConvolution(out_channels, out_channels)
        self.emb_layers = nn.Linear(WIDTH, out_channels)
        self.skip_connection = Linear(channels, out_channels)

    def forward(self, x, mod):
        x = x if self.updown is None else self.updown(x)
        h = self.conv1(x.replace(F.silu(F.layer_norm(x.feats, x.feats.shape[-1:]))))
        h = self.conv2(h.replace(F.silu(h.feats + of_each(h, self.emb_layers(mod)).to(h.feats.dtype))))
        return h + self.skip_connection(x)


class SparseBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = SparseAttention(WIDTH, HEADS, norm=True)
        self.cross_attn = SparseAttention(WIDTH, HEADS, context=CONDITION)
        self.mlp, self.adaLN_modulation = feed_forward(), nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x, mod, context):
        shift, scale = of_each(x, self.adaLN_modulation(mod)).chunk(2, dim=-1)
        x = x + self.self_attn(x.replace(F.layer_norm(x.feats, (WIDTH,))) * (1 + scale) + shift)
        x = x + self.cross_attn(x.replace(F.layer_norm(x.feats, (WIDTH,))), context)
        return x + x.replace(self.mlp(F.layer_norm(x.feats, (WIDTH,))))


class LatentNetwork(nn.Module):
    """Latent flow on a `SparseTensor`, its torso in `dtype`."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.resolution, self.in_channels, self.patch_size = GRID, 8, 2
        self.input_layer, self.out_layer = Linear(8, IO), Linear(IO, 8)
        self.input_blocks = nn.ModuleList([ResidualBlock(IO, IO), ResidualBlock(IO, WIDTH, down=True)])
        self.blocks = nn.ModuleList(SparseBlock() for _ in range(2))
        self.out_blocks = nn.ModuleList([ResidualBlock(2 * WIDTH, IO, up=True), ResidualBlock(2 * IO, IO)])
        self.t_embedder = nn.Linear(WIDTH, WIDTH)
        self.dtype = dtype
        for part in (self.input_blocks, self.blocks, self.out_blocks):
            part.to(dtype)

    @property
    def device(self):
        return self.input_layer.weight.device

    def forward(self, x, t, cond):
        h = self.input_layer(x).type(self.dtype)
        mod, cond = self.t_embedder(embedded(t)).type(self.dtype), cond.type(self.dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, mod)
            skips.append(h.feats)
        h = h + embedded(h.coords[:, 1:].float().sum(1) * 10).type(self.dtype)
        for block in self.blocks:
            h = block(h, mod, cond)
        for block, skip in zip(self.out_blocks, reversed(skips), strict=True):
            h = block(h.replace(torch.cat([h.feats, skip], dim=1)), mod)
        h = h.type(x.feats.dtype)
        return self.out_layer(h.replace(F.layer_norm(h.feats, (IO,))))


class WrappedLatentNetwork(LatentNetwork):
    """The same for a tensor `[1, N, 8]` and numpy voxels, which come last."""

    def __init__(self, dtype=torch.float32):
        super().__init__(dtype)
        self.force_zeros_cond = True

    def forward(self, x, t, *condition, **kwargs):
        kwargs.pop("d", None)
        zeroed = kwargs.pop("cfg", False)
        cond, coords = condition
        assert not isinstance(coords, torch.Tensor)
        sparse = SparseTensor(x[0], torch.tensor(coords).to(x.device))
        return super().forward(sparse, t, cond * 0 if zeroed else cond).feats[None]


class StructureDecoder(nn.Module):
    """A ball of voxels whose surface the latent moves. `[B, 8, r, r, r] -> [B, 1, R, R, R]`."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, (GRID // LATENT) ** 3) * 0.3)

    def forward(self, z):
        fine = GRID // LATENT
        parts = torch.einsum("bcxyz,cd->bxyzd", z.float(), self.weight).unflatten(-1, (fine, fine, fine))
        moved = parts.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(z), 1, GRID, GRID, GRID)
        axis = torch.arange(GRID) - (GRID - 1) / 2
        radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
        return GRID / 4 - radius + moved


class DecoderBlock(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.attn = SparseAttention(WIDTH, HEADS, mode="windowed", window=4, shift=shift)

    def forward(self, x):
        return x + self.attn(x.replace(F.layer_norm(x.feats, (WIDTH,))))


class Decoder(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.input_layer, self.out_layer = Linear(8, WIDTH), Linear(WIDTH, channels)
        self.blocks = nn.ModuleList(DecoderBlock(shift) for shift in (0, 2))

    def trunk(self, x):
        h = self.input_layer(x)
        for block in self.blocks:
            h = block(h)
        return self.out_layer(h)


class MeshExtractResult:
    def __init__(self, vertices, faces, vertex_attrs=None, res=64):
        self.vertices, self.faces, self.vertex_attrs, self.res = vertices, faces, vertex_attrs, res


class DenseSurface:
    """One vertex in the middle of each voxel; no faces. Says how often it was asked."""

    def __init__(self, res):
        self.res, self.feats_channels, self.calls = res, 101, 0

    def __call__(self, features, training=False):
        self.calls += 1
        vertices = (features.coords[:, 1:].float() + 0.5) / self.res - 0.5
        return MeshExtractResult(vertices, torch.zeros(0, 3, dtype=torch.long), features.feats[:, :6], self.res)


class MeshDecoder(Decoder):
    def __init__(self):
        super().__init__(101)
        self.mesh_extractor = DenseSurface(GRID)

    def to_representation(self, x):
        return [self.mesh_extractor(x, training=self.training)]

    def forward(self, x):
        return self.to_representation(self.trunk(x))


class Gaussian:
    """Raw parameters with setters, as in both pipelines; standard deviations by `exp`, for brevity."""

    def __init__(self, xyz, scaling):
        self._xyz, self._scaling = xyz, scaling

    @property
    def get_xyz(self):
        return self._xyz - 0.5

    @property
    def get_scaling(self):
        return self._scaling.exp()

    def from_xyz(self, xyz):
        self._xyz = xyz + 0.5

    def from_scaling(self, scaling):
        self._scaling = scaling.log()


class GaussianDecoder(Decoder):
    def __init__(self):
        super().__init__(6)

    def forward(self, x):
        out = self.trunk(x).feats
        return [Gaussian((x.coords[:, 1:].float() + 0.5 + 0.5 * out[:, :3].tanh()) / GRID, out[:, 3:] - 3)]
