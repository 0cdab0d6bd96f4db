"""The marking network: a small U-Net from the maps of `prompt_maps` to the probability of the object at each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.marking.prompt_maps import CHANNELS, STRIDE

WIDTHS = (16, 32, 56, 80)
"""Numbers of channels at 1/2, 1/4, 1/8 and 1/16 of the picture's side."""
MULTIPLE = 32
"""Height and width of a picture, in pixels, are multiples of this number."""


def _convolution(
    normalised: bool, inputs: int, outputs: int, size: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A convolution, and batch normalisation, which `folded` puts into the convolution's weights."""
    reach = size // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, reach, dilation, bias=not normalised),
        nn.BatchNorm2d(outputs) if normalised else nn.Identity(),
    )


def _rectified(
    normalised: bool, inputs: int, outputs: int, size: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    return _convolution(normalised, inputs, outputs, size, stride, dilation).append(nn.ReLU(inplace=True))


class Bottleneck(nn.Module):
    """A residual block on half of the channels; its dilated convolution widens the receptive field."""

    def __init__(self, normalised: bool, width: int, dilation: int = 1) -> None:
        super().__init__()
        inner = width // 2
        self.reduce = _rectified(normalised, width, inner, 1)
        self.middle = _rectified(normalised, inner, inner, 3, 1, dilation)
        self.expand = _convolution(normalised, inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.expand(self.middle(self.reduce(x))))


class GlobalContext(nn.Module):
    """Adds the context of the whole picture to every place: its mean, and two means with weights that are learned."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend = nn.Conv2d(width, 2, 1)
        self.mix = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.attend(x).float().flatten(2).softmax(2).to(x.dtype)
        pooled = torch.einsum("bkn,bcn->bkc", weights, x.flatten(2)).flatten(1)
        whole = torch.cat([pooled, x.mean((2, 3))], dim=1)
        return F.relu(x + self.mix(whole[:, :, None, None]))


class MarkingNetwork(nn.Module):
    """Maps `[B, CHANNELS, h, w]` to logits `[B, 1, 2h, 2w]`; see `prompt_maps`.

    Args:
        normalised: with batch normalisation, as it is trained; without, as it is used: see `folded`.
    """

    def __init__(self, normalised: bool = True) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        convolution, block = partial(_rectified, normalised), partial(Bottleneck, normalised)
        self.stem = convolution(CHANNELS, a)
        self.down1 = nn.Sequential(convolution(a, b, 3, 2), convolution(b, b))
        self.down2 = nn.Sequential(convolution(b, c, 3, 2), block(c), block(c, 2))
        self.down3 = nn.Sequential(
            convolution(c, d, 3, 2), block(d), GlobalContext(d), block(d, 2), block(d, 3), block(d)
        )
        self.side2, self.up2 = nn.Conv2d(d, c, 1), nn.Sequential(block(c), block(c, 2))
        self.side1, self.up1 = nn.Conv2d(c, b, 1), nn.Sequential(convolution(b, b), convolution(b, b))
        self.side0, self.up0 = nn.Conv2d(b, a, 1), convolution(a, a)
        self.head = nn.Conv2d(a, STRIDE**2, 3, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Computes logits of the object at each pixel; shapes as above."""
        x0 = self.stem(maps)
        x1 = self.down1(x0)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        y2 = self.up2(x2 + _enlarged(self.side2(x3)))
        y1 = self.up1(x1 + _enlarged(self.side1(y2)))
        y0 = self.up0(x0 + _enlarged(self.side0(y1)))
        return F.pixel_shuffle(self.head(y0).float(), STRIDE)


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Puts batch normalisation into the weights: a state without it that gives the same answers.

    Args:
        state: of `MarkingNetwork()`.
    """
    result = {}
    normalised = {name.removesuffix("1.running_var") for name in state if name.endswith(".1.running_var")}
    for name, value in state.items():
        place = next((prefix for prefix in normalised if name.startswith((f"{prefix}0.", f"{prefix}1."))), None)
        if place is None:
            result[name] = value
        elif name == f"{place}0.weight":
            scale = state[f"{place}1.weight"] / (state[f"{place}1.running_var"] + nn.BatchNorm2d(1).eps).sqrt()
            result[name] = value * scale.view(-1, 1, 1, 1)
            result[f"{place}0.bias"] = state[f"{place}1.bias"] - state[f"{place}1.running_mean"] * scale
    return result
