"""The sparse-structure generator: a mixture-of-transformers DiT over shape and layout tokens.

docs/facts.md, section S4.3; state-dict names: docs/facts.md, section S10.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.modules.attention import CrossAttention, attend
from fastsam3d.modules.elementwise import operations_for
from fastsam3d.modules.layers import (
    FeedForward,
    LayerNorm32,
    MultiHeadRMSNorm,
    TimestepEmbedder,
    grid_positions,
    sinusoidal_position_embedding,
)

SHAPE = "shape"
"""Name of the latent, and of the stream, that carries the occupancy."""
POSE_STREAM = "6drotation_normalized"
"""Name of the stream that carries the four layout latents (the official checkpoints name it by its first)."""
POSE_LATENTS = ("6drotation_normalized", "translation", "scale", "translation_scale")
"""Layout latents in the order in which their tokens are concatenated (not the mapping's order)."""
LATENT_CHANNELS = {"6drotation_normalized": 6, "scale": 3, SHAPE: 8, "translation": 3, "translation_scale": 1}
"""Channels of each latent, in the mapping's order, which is also the order of the output."""


class Latent(nn.Module):
    """Input and output projection of one latent, with its position embedding."""

    def __init__(self, in_channels: int, model_channels: int, positions: Tensor | None) -> None:
        super().__init__()
        self.input_layer = nn.Linear(in_channels, model_channels)
        self.out_layer = nn.Linear(model_channels, in_channels)
        if positions is None:
            self.pos_emb = nn.Parameter(torch.randn(1, model_channels) * 0.02)
        else:
            self.register_buffer("pos_emb", sinusoidal_position_embedding(positions, model_channels))

    def to_input(self, x: Tensor) -> Tensor:
        """Latents `[B, T, C]` to tokens `[B, T, model_channels]`."""
        return self.input_layer(x) + self.pos_emb

    def to_output(self, h: Tensor) -> Tensor:
        """Tokens to velocities, `[B, T, model_channels] -> [B, T, C]`."""
        return self.out_layer(F.layer_norm(h.float(), h.shape[-1:], eps=1e-5).to(h.dtype))


class MixtureSelfAttention(nn.Module):
    """Self-attention of two streams with separate weights: shape sees shape, layout sees layout and shape.

    `{stream: [B, T, C]}` to the like.
    """

    fused = True

    def __init__(self, streams: Sequence[str], channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.ModuleDict({s: nn.Linear(channels, 3 * channels) for s in streams})
        self.q_rms_norm = nn.ModuleDict({s: MultiHeadRMSNorm(channels // heads, heads) for s in streams})
        self.k_rms_norm = nn.ModuleDict({s: MultiHeadRMSNorm(channels // heads, heads) for s in streams})
        self.to_out = nn.ModuleDict({s: nn.Linear(channels, channels) for s in streams})

    def project(self, stream: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised queries and keys, and values, of one stream: each `[B, T, H, D]`."""
        qkv = self.to_qkv[stream](x).unflatten(-1, (3, self.heads, -1))
        do = operations_for(qkv, self.fused)
        q, k = do.normalise_heads(qkv, self.q_rms_norm[stream], self.k_rms_norm[stream])
        return q, k, qkv[:, :, 2]

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        q_shape, k_shape, v_shape = self.project(SHAPE, x[SHAPE])
        shape = attend(q_shape, k_shape, v_shape)
        if POSE_STREAM not in x:
            return {SHAPE: self.to_out[SHAPE](shape)}
        q_pose, k_pose, v_pose = self.project(POSE_STREAM, x[POSE_STREAM])
        pose = attend(q_pose, torch.cat([k_pose, k_shape], dim=1), torch.cat([v_pose, v_shape], dim=1))
        return {SHAPE: self.to_out[SHAPE](shape), POSE_STREAM: self.to_out[POSE_STREAM](pose)}


class MixtureBlock(nn.Module):
    """Transformer block over named streams: all weights apart, time modulation shared.

    `{stream: [B, T, C]}` to the like. A block takes the streams it is given: whoever replaces its self-attention may
    leave one out.
    """

    fused = True

    def __init__(self, channels: int, context_channels: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        streams = (SHAPE, POSE_STREAM)
        self.norm1 = LayerNorm32(channels, affine=False)
        self.norm2 = nn.ModuleDict({s: LayerNorm32(channels, affine=True) for s in streams})
        self.norm3 = LayerNorm32(channels, affine=False)
        self.self_attn = MixtureSelfAttention(streams, channels, heads)
        self.cross_attn = nn.ModuleDict({s: CrossAttention(channels, context_channels, heads) for s in streams})
        self.mlp = nn.ModuleDict({s: FeedForward(channels, mlp_ratio) for s in streams})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))

    def forward(self, x: Mapping[str, Tensor], t_emb: Tensor, cond: Tensor) -> dict[str, Tensor]:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(t_emb).chunk(6, dim=-1)
        do = operations_for(next(iter(x.values())), self.fused)
        attended = self.self_attn({s: do.normalise(h, self.norm1, shift_a, scale_a) for s, h in x.items()})
        out = {}
        for stream, h in x.items():
            h, y = do.add_normalise(h, attended[stream], gate_a, self.norm2[stream])
            y = self.cross_attn[stream](y, cond)
            h, y = do.add_normalise(h, y, None, self.norm3, shift_m, scale_m)
            out[stream] = do.add(h, self.mlp[stream](y), gate_m)
        return out


class SparseStructureGenerator(nn.Module):
    """Velocity network of the first stage.

    Args:
        latent_resolution: side of the token grid; 16 in the official model, 4096 shape tokens.
        shape_channels: channels of a shape token; 8 in the official model. A model that patches its latent
            carries `8 * patch^3`.
        model_channels, num_blocks, num_heads, mlp_ratio, cond_channels: transformer sizes.

    Inputs of `forward`: `x` dict of latents `[B, T, C]`, `t` `[B]` (time times 1000), `cond [B, L, cond_channels]`,
    `d` `[B]` step size times 1000 (0 unless distilled; it is always embedded), `cfg` true for the unconditional
    pass, where the condition is multiplied by zero. Output: dict of velocities with the latents' shapes.

    Shape never sees the layout: with `x` holding `shape` alone the layout is left out, and the shape is the same.
    """

    def __init__(
        self,
        latent_resolution: int = 16,
        shape_channels: int = 8,
        model_channels: int = 1024,
        num_blocks: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        cond_channels: int = 1024,
    ) -> None:
        super().__init__()
        self.latent_resolution = latent_resolution
        self.t_embedder = TimestepEmbedder(model_channels)
        self.d_embedder = TimestepEmbedder(model_channels)
        channels = {**LATENT_CHANNELS, SHAPE: shape_channels}
        positions = grid_positions(latent_resolution)
        self.latent_mapping = nn.ModuleDict(
            {name: Latent(c, model_channels, positions if name == SHAPE else None) for name, c in channels.items()}
        )
        self.blocks = nn.ModuleList(
            [MixtureBlock(model_channels, cond_channels, num_heads, mlp_ratio) for _ in range(num_blocks)]
        )

    def latent_shapes(self, batch: int = 1) -> dict[str, tuple[int, int, int]]:
        """Shape of each latent, in sorted order of names: the order in which noise is drawn."""
        tokens = dict.fromkeys(self.latent_mapping, 1) | {SHAPE: self.latent_resolution**3}
        return {
            name: (batch, tokens[name], self.latent_mapping[name].input_layer.in_features)
            for name in sorted(self.latent_mapping)
        }

    def forward(
        self, x: Mapping[str, Tensor], t: Tensor, cond: Tensor, d: Tensor | None = None, cfg: bool = False
    ) -> dict[str, Tensor]:
        if cfg:
            cond = cond * 0
        t_emb = self.t_embedder(t) + self.d_embedder(torch.zeros_like(t) if d is None else d)
        mapping = self.latent_mapping
        streams = {SHAPE: mapping[SHAPE].to_input(x[SHAPE])}
        if POSE_LATENTS[0] in x:
            streams[POSE_STREAM] = torch.cat([mapping[name].to_input(x[name]) for name in POSE_LATENTS], dim=1)
        for block in self.blocks:
            streams = block(streams, t_emb, cond)
        hidden = {SHAPE: streams[SHAPE]}
        if POSE_STREAM in streams:
            hidden |= dict(zip(POSE_LATENTS, streams[POSE_STREAM].split(1, dim=1), strict=True))
        return {name: latent.to_output(hidden[name]) for name, latent in mapping.items() if name in hidden}
