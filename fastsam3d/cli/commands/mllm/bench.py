"""`mllm bench`: every preset on held-out rooms, in one table."""

from __future__ import annotations

from pathlib import Path

from fastsam3d.basics.options import describe_options, parse_options
from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.evaluation.language_models.options import PruningBenchmarkOptions

COMMAND = "python -m fastsam3d mllm bench"


def main(words: list[str]) -> int:
    """Measures, prints the tables and writes them; returns the exit code.

    Raises:
        UserError: an unknown key, preset or file; transformers is missing; the folder cannot be written.
    """
    if asks_for_help(words):
        say(describe_options(PruningBenchmarkOptions, COMMAND) + "\n")
        return 0
    options = parse_options(PruningBenchmarkOptions, words, "mllm bench")
    from fastsam3d.evaluation.language_models.run import run
    from fastsam3d.evaluation.language_models.tables import render

    with Console().progress():
        result = run(options)
    say(render(result))
    say(f"\nwritten: {Path(options.output) / 'bench.json'} and bench.md\n")
    return 0
