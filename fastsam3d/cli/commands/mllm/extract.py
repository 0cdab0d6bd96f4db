"""`mllm extract`: attention maps of Chat-Scene on the questions of its benchmarks, in one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastsam3d.cli.commands.mllm.stored_maps import write_maps
from fastsam3d.training.predictor.chat_scene.options import ExtractionOptions

EXAMPLES = """\
  {command} FILES split=train output=maps.safetensors     to train a predictor on
  {command} FILES split=val output=true.safetensors       to test the predictor, or to prune by these maps"""


def main(words: list[str]) -> int:
    """Extracts the maps, see `write_maps`."""
    return write_maps("extract", ExtractionOptions, EXAMPLES, words, _maker)


def _maker() -> Callable[..., Any]:
    from fastsam3d.training.predictor.chat_scene.extraction import extract

    return extract
