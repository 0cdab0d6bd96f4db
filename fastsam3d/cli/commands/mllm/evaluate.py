"""`mllm evaluate`: Chat-Scene on its benchmarks, plain or pruned."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from fastsam3d.basics.options import describe_options, parse_options
from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.evaluation.language_models.chat_scene.options import EvaluationOptions

COMMAND = "python -m fastsam3d mllm evaluate"
ABOUT = """\
Any other key=value changes a setting of the preset. The settings of the pruning are written without their group:
layer, depth, budget, keep, share, alpha, times and mask. A value for keep, share, alpha or times also chooses the
budget that uses it. All other settings are written with their group, such as gap.predictor=FILE.

  {command} FILES                                            plain inference
  {command} FILES preset=fastv_90 layer=2 keep=5             FastV, 5 objects
  {command} FILES preset=gap_90 maps=MAPS                    stored maps rank the objects
  {command} FILES preset=gap_sap_90 alpha=0.21 maps=MAPS     they also decide how many stay

FILES stands for vicuna=DIR checkpoint=FILE annotations=DIR. To resume an interrupted run, repeat the command."""


def main(words: list[str]) -> int:
    """Evaluates, writes answers and scores, prints the table; returns the exit code.

    Raises:
        UserError: an unknown key or preset, a file is missing or cannot be read, or the folder holds another run.
    """
    if asks_for_help(words):
        say(f"{describe_options(EvaluationOptions, COMMAND)}\n\n{ABOUT.format(command=COMMAND)}\n")
        return 0
    own, changes = divided(words)
    options = parse_options(EvaluationOptions, own, "mllm evaluate")
    from fastsam3d.evaluation.language_models.chat_scene.run import SCORES, TABLE, evaluate
    from fastsam3d.evaluation.language_models.chat_scene.tables import render

    console = Console()
    with console.progress():
        result = evaluate(options, changes, console.step)
    say(f"{render(result)}\nwritten: {Path(options.output) / SCORES}, {TABLE} and the answers\n")
    return 0


def divided(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Divides the words of the command line.

    Returns:
        The words that are options of the command, and the texts of changed settings by key.
    """
    known = {item.name for item in fields(EvaluationOptions)}
    own, changes = [], {}
    for word in words:
        key, equals, text = word.partition("=")
        if equals and key.strip() not in known:
            changes[key.strip()] = text.strip()
        else:
            own.append(word)
    return own, changes
