"""`mllm search-alpha`: the mass of the adaptive budget that leaves out a wanted percentage of the objects."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.options import describe_options, number_from, option, optional_text, parse_options, whole
from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import asks_for_help

COMMAND = "python -m fastsam3d mllm search-alpha"


@dataclass(frozen=True)
class SearchAlphaOptions:
    """Options of the command."""

    target: float = option(90.0, number_from(0.0, 100.0), "percent of the objects that shall be left out")
    model: str | None = option(None, optional_text, "folder of a small model that you trained; null: the shipped one")
    rooms: int = option(71, whole(1), "rooms of 30 to 100 objects, made for this")
    questions: int = option(18, whole(1), "questions about each of them")


def main(words: list[str]) -> int:
    """Searches and prints what it found; returns the exit code.

    Raises:
        UserError: an unknown key, a target that cannot be reached, or a missing file.
    """
    if asks_for_help(words):
        say(describe_options(SearchAlphaOptions, COMMAND) + "\n")
        return 0
    options = parse_options(SearchAlphaOptions, words, "mllm search-alpha")
    from fastsam3d.mllm.mini.loading import load_small_model
    from fastsam3d.training.language_model.alpha import find_alpha

    console = Console()
    with console.progress():
        console.step("predicting")
        model = load_small_model(options.model)
        found = find_alpha(
            model, model.language_model.attention_predictor, options.target, options.rooms, options.questions
        )
    say(
        f"pruning.alpha={found.alpha:.4f} leaves out {found.percent:.2f} % of the objects on average; "
        f"{found.fewest} to {found.most} of them stay.\n"
    )
    return 0
