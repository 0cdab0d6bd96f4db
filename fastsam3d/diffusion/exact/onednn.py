"""Exact saving on a CPU: oneDNN where PyTorch of its own accord takes a slower way.

- *Dense convolutions.* For a batch of one and few channels, PyTorch's dispatch sends 3 x 3 x 3 convolutions to a kernel
  that writes out all 27 neighbours. oneDNN's takes two thirds to a sixth of the time, and in channels-last layout the
  normalisations between the convolutions need no copies either.
- *Feed-forwards.* The hidden layer's GELU is applied where the product leaves its registers, not in a pass of its own.

Both rest in half precision, under autocast, and where gradients are wanted.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, register_saving
from fastsam3d.diffusion.sites import Forward
from fastsam3d.modules.tensor_versions import place_and_version

LAYOUT = torch.channels_last_3d


class DenseConvolution:
    """A `Conv3d`'s `forward` by oneDNN. Memory: its weights again, in the other layout."""

    def __init__(self, layer: nn.Conv3d) -> None:
        self.layer = layer
        self._key: tuple[int, int] | None = None
        self._weight = torch.empty(0)

    def wrap(self, original: Forward) -> Forward:
        """The layer's `forward`; the original where oneDNN has nothing to offer."""

        def forward(x: Tensor) -> Tensor:
            layer = self.layer
            if not _applies(x, layer.weight) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                return original(x)
            key = place_and_version(layer.weight)
            if key != self._key:
                self._key, self._weight = key, layer.weight.contiguous(memory_format=LAYOUT)
            where = layer.padding, layer.stride, layer.dilation, layer.groups
            x = x.contiguous(memory_format=LAYOUT)
            return torch.ops.aten.mkldnn_convolution(x, self._weight, layer.bias, *where)

        return forward


class FusedFeedForward:
    """`forward` of a sequence of linear layer, GELU and linear layer, with the first two in one kernel."""

    def __init__(self, sequence: nn.Sequential) -> None:
        layers: list[Any] = list(sequence)
        self.first, self.activation, self.last = layers

    def wrap(self, original: Forward) -> Forward:
        """The sequence's `forward`; the original where oneDNN has nothing to offer."""

        def forward(x: Tensor) -> Tensor:
            if not _applies(x, self.first.weight) or not fused_activation_works():
                return original(x)
            form = self.activation.approximate
            return self.last(_linear_gelu(x, self.first.weight, self.first.bias, form))

        return forward


def _applies(x: Tensor, weight: Tensor) -> bool:
    fp32 = x.dtype == weight.dtype == torch.float32
    plain = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return fp32 and plain and x.device.type == "cpu" and torch.backends.mkldnn.is_available() and x.numel() > 0


def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, form: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], form)


@functools.cache
def fused_activation_works() -> bool:
    """Tells whether this build of PyTorch has the fused operation, which is not public, and computes it right."""
    with torch.no_grad():
        x, weight, bias = torch.linspace(-3, 3, 12).view(3, 4), torch.linspace(-1, 1, 20).view(5, 4), torch.arange(5.0)
        expected = F.gelu(F.linear(x, weight, bias), approximate="tanh")
        try:
            return torch.allclose(_linear_gelu(x, weight, bias, "tanh"), expected, rtol=1e-5, atol=1e-6)
        except (AttributeError, RuntimeError, TypeError):
            return False


def _attach(target: PipelineTarget) -> None:
    for convolution in target.host.dense_convolutions():
        target.patches.replace(convolution, "forward", DenseConvolution(convolution).wrap)
    for sequence in target.host.feed_forwards():
        target.patches.replace(sequence, "forward", FusedFeedForward(sequence).wrap)


register_saving(
    ExactSaving(
        "onednn",
        "On a CPU in fp32, dense convolutions and the activations of feed-forwards by oneDNN. Faster; memory: those "
        "convolutions' weights again.",
        Nesting.OPERATORS,
        sites=("dense_convolutions", "feed_forwards"),
        attach=_attach,
    )
)
