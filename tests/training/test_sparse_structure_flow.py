"""The first stage's loss against a network whose answer is known, and the constants that an export writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastsam3d.sam3d.models.sparse_structure_decoder import SparseStructureDecoder
from fastsam3d.sam3d.models.sparse_structure_generator import POSE_LATENTS, SHAPE
from fastsam3d.training.export import replace_line, scaled_decoder
from fastsam3d.training.sparse_structure.flow import flow_loss, sample_times
from fastsam3d.training.sparse_structure.vae import DILATION, SparseStructureEncoder, soft_occupancy, vae_loss


class Oracle(nn.Module):
    """Knows the data, so it knows the velocity: `x_t = (1 - t) n + t d` gives `d - n = (d - x_t) / (1 - t)`."""

    def __init__(self, data: dict[str, Tensor], repeats: int) -> None:
        super().__init__()
        self.data = {k: v.repeat_interleave(repeats, dim=0) for k, v in data.items()}

    def forward(self, state: dict[str, Tensor], time: Tensor, inputs: Any, keep: Tensor) -> dict[str, Tensor]:
        assert len(keep) * 4 == len(time)
        return {k: (self.data[k] - x) / (1 - time)[:, None, None] for k, x in state.items()}


def test_the_true_velocity_has_no_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    data = {SHAPE: torch.randn(3, 8, 4, generator=generator)}
    data |= {name: torch.randn(3, 1, 2, generator=generator) for name in POSE_LATENTS}
    loss, _ = flow_loss(Oracle(data, 4), {}, data, 4, generator)
    assert loss.item() < 1e-6
    other = {name: value + 1 for name, value in data.items()}
    loss, parts = flow_loss(Oracle(data, 4), {}, other, 4, generator)
    assert parts["shape"].item() > 0.5 and loss.item() > 1.0


def test_training_times_lean_to_noise() -> None:
    times = sample_times(20_000, torch.Generator().manual_seed(0))
    assert times.min() >= 0 and times.max() <= 1
    # four fifths around sigmoid(-0.8) = 0.31, one fifth uniform: mean about 0.8 * 0.335 + 0.2 * 0.5
    assert times.mean().item() == pytest.approx(0.368, abs=0.01)
    assert (times > 0.95).float().mean().item() > 0.01


def test_soft_occupancy_is_half_at_the_dilated_surface() -> None:
    values = soft_occupancy(torch.tensor([DILATION, -1.0, 1.0]))
    assert values.tolist() == pytest.approx([0.5, 1.0, 0.0])


def test_vae_loss_is_finite_and_counts_occupancy() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = SparseStructureEncoder(8, (8, 8)), SparseStructureDecoder(8, (16, 8, 8), 1, 1, 2)
    axis = (torch.arange(32) + 0.5) / 32 - 0.5
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).norm(dim=-1)
    loss, parts = vae_loss(encoder, decoder, (radius - 0.3)[None, None], torch.zeros(1, 8, 8, 8, 8), 1e-3)
    assert torch.isfinite(loss) and 0 <= parts["iou"] <= 1


def test_the_scale_moves_into_the_decoder_exactly() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = SparseStructureDecoder(8, (16, 8, 8), 1, 1, 2).eval()
    scale = torch.linspace(0.5, 2.0, 8)
    state = {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    latent = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = decoder(latent * scale.repeat_interleave(8))
        decoder.load_state_dict(scaled_decoder(state, scale))
        torch.testing.assert_close(decoder(latent), expected, atol=1e-5, rtol=1e-5)


def test_yaml_lines_are_replaced_in_place() -> None:
    text = "a:\n  b: [0.0, 0.0]   # note\n  c: 1.0\n"
    assert replace_line(text, "b", [1.5, 2.0]) == "a:\n  b: [1.5, 2]   # note\n  c: 1.0\n"
    assert "c: 0.25" in replace_line(text, "c", 0.25)
    with pytest.raises(ValueError, match="'d'"):
        replace_line(text, "d", 1.0)
