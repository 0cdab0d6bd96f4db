"""`train`: trains the mini model stage by stage, one stage of it, or one program with all of its flags.

python -m fastsam3d train output=runs minutes=180                all stages, sharing the time
python -m fastsam3d train stage=ss_flow output=runs minutes=90   one stage
python -m fastsam3d train device=cuda objects=200000 workers=16 minutes=10
python -m fastsam3d train structured-latent-flow --data DIR --output RUN --minutes 40
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastsam3d.basics.flags import parse_flags
from fastsam3d.basics.options import describe_options, parse_options
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError
from fastsam3d.training import options as settings
from fastsam3d.training.marker.options import MarkerOptions

COMMAND = "python -m fastsam3d train"


@dataclass(frozen=True)
class Program:
    """A training program.

    Attributes:
        text: what it does, for the help.
        options: class of its flags.
        place: module and function, as `module:function`.
        call: hands the options to the function.
    """

    text: str
    options: type
    place: str
    call: Callable[[Callable[..., Any], Any], Any] = lambda function, options: function(options)

    def run(self, name: str, words: list[str], command: str = COMMAND) -> Any:
        """Parses the flags and runs the program; returns what its function does."""
        options: Any = parse_flags(self.options, words, f"{command} {name}", self.text)
        module, _, function = self.place.partition(":")
        return self.call(getattr(importlib.import_module(f"fastsam3d.training.{module}"), function), options)


def _generate(generate: Callable[..., Any], options: settings.DataOptions) -> None:
    generate(options.output, options.objects, options.first_seed, options.views, options.workers)


def _as_json(evaluate: Callable[..., Any], options: settings.StructuredLatentQualityOptions) -> None:
    json.dump(evaluate(options), sys.stdout, indent=1)
    sys.stdout.write("\n")


PROGRAMS = {
    "data": Program(
        "Writes procedural training objects to shards.", settings.DataOptions, "data.dataset:generate", _generate
    ),
    "sparse-structure-vae": Program(
        "Trains the decoder of the sparse structure.", settings.SparseStructureVaeOptions, "sparse_structure.vae:train"
    ),
    "sparse-structure-flow": Program(
        "Trains the generator of the sparse structure.",
        settings.SparseStructureFlowOptions,
        "sparse_structure.flow:train",
    ),
    "structured-latent-vae": Program(
        "Trains the mesh decoder.", settings.StructuredLatentVaeOptions, "structured_latent.vae:train"
    ),
    "structured-latent-flow": Program(
        "Trains the generator of the structured latents.",
        settings.StructuredLatentFlowOptions,
        "structured_latent.flow:train",
    ),
    "gaussian-decoder": Program(
        "Trains the Gaussian decoder, on the latents that the mesh decoder reads.",
        settings.GaussianDecoderOptions,
        "structured_latent.gaussian_decoder:train",
    ),
    "marker": Program("Trains the network that marks objects in pictures.", MarkerOptions, "marker.training:train"),
    "structured-latent-quality": Program(
        "Measures the second stage alone, on held-out objects; prints JSON.",
        settings.StructuredLatentQualityOptions,
        "structured_latent.evaluation:evaluate",
        _as_json,
    ),
    "export": Program("Writes the weights of finished runs.", settings.ExportOptions, "export:export"),
}

ABOUT = "\n".join(
    [
        "Trains the mini model on procedural objects. Interrupt and repeat the command to resume.",
        "python -m fastsam3d loss-curves log=OUTPUT/STAGE/losses.jsonl draws the losses of a stage.",
        "",
        f"One program with all of its flags: {COMMAND} PROGRAM --help",
        *(f"  {name:<26} {program.text}" for name, program in PROGRAMS.items()),
    ]
)


@contextmanager
def told() -> Iterator[None]:
    """Shows what the programs log on stderr, inside a `with` block."""
    logger, handler = logging.getLogger("fastsam3d.training"), logging.StreamHandler()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def main(words: list[str]) -> int:
    """Runs the command; returns the exit code.

    Raises:
        UserError: a word is no `key=value`, a key or program is unknown, or a value cannot be used; what a stage builds
            on is missing.
    """
    if words and words[0] in PROGRAMS:
        with told():
            PROGRAMS[words[0]].run(words[0], words[1:])
        return 0
    if asks_for_help(words):
        print(f"{describe_options(settings.RecipeOptions, COMMAND)}\n\n{ABOUT}")
        return 0
    if words and "=" not in words[0] and not words[0].startswith("-"):
        raise UserError(f"train: unknown program {words[0]!r}. {suggestion(words[0], PROGRAMS)}")
    options = parse_options(settings.RecipeOptions, words, "train")
    from fastsam3d.training.recipe import run

    with told():
        run(options)
    return 0
