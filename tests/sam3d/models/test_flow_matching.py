"""The time grid, the guidance interval and the Euler sampler, against values worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastsam3d.sam3d.models.flow_matching import ClassifierFreeGuidance, FlowMatching, ShortCut, time_grid


class ConstantVelocity(nn.Module):
    """Returns 3 with the condition and 1 without, and counts its evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, bool]] = []

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, cfg: bool = False, **kwargs: Any) -> Tensor:
        self.calls.append((float(t[0]), cfg))
        self.kwargs = kwargs
        return torch.full_like(x, 1.0 if cfg else 3.0)


def test_time_grid_of_the_first_stage() -> None:
    times = time_grid(25, 3.0)
    expected = {0: 0, 1: 0.0137, 4: 0.0597, 7: 0.1148, 10: 0.1818, 13: 0.2653, 16: 0.3721, 18: 0.4615}
    expected |= {19: 0.5135, 22: 0.7097, 24: 0.8889, 25: 1}
    for index, value in expected.items():
        assert times[index] == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize(("rescale", "evaluations"), [(3.0, 44), (1.0, 38)])
def test_evaluations_of_a_default_run(rescale: float, evaluations: int) -> None:
    backbone = ConstantVelocity()
    FlowMatching(ClassifierFreeGuidance(backbone, 7.0), 25, rescale).sample(torch.zeros(1, 2, 1), torch.zeros(1, 1, 1))
    assert len(backbone.calls) == evaluations
    assert backbone.calls[0] == (0.0, False) and backbone.calls[1] == (0.0, True)  # conditional first


def test_guided_integral_by_hand() -> None:
    guided = ClassifierFreeGuidance(ConstantVelocity(), 2.0)
    out = FlowMatching(guided, 4, 1.0).sample(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    # v = 3 * 3 - 2 * 1 = 7 at t = 0, .25, .5 (inclusive) and 3 at t = .75
    assert out.item() == pytest.approx(0.25 * (7 * 3 + 3))


def test_guidance_per_latent() -> None:
    class TwoLatents(nn.Module):
        def forward(self, x: dict[str, Tensor], t: Tensor, cond: Tensor, cfg: bool = False) -> dict[str, Tensor]:
            return {name: torch.full_like(value, 1.0 if cfg else 3.0) for name, value in x.items()}

    guided = ClassifierFreeGuidance(TwoLatents(), {"shape": 2.0, "translation": 0.5})
    state = {"shape": torch.zeros(1, 1, 1), "translation": torch.zeros(1, 1, 1)}
    out = guided(state, 0.0, torch.zeros(1, 1, 1))
    assert out["shape"].item() == 7.0 and out["translation"].item() == 4.0


def test_velocity_is_looked_up_on_the_instance() -> None:
    flow = FlowMatching(ClassifierFreeGuidance(ConstantVelocity(), 0.0), 5)
    flow.velocity = lambda x, time, condition: torch.ones_like(x)  # type: ignore[method-assign]
    assert flow.sample(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("shortcut", "size"), [(False, 0.0), (True, 250.0)])
def test_step_size_embedding(shortcut: bool, size: float) -> None:
    backbone = ConstantVelocity()
    flow = ShortCut(ClassifierFreeGuidance(backbone, 0.0), 4, 3.0, shortcut)
    flow.sample(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    assert backbone.kwargs["d"].tolist() == [size]


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        time_grid(0, 1.0)
