"""`mllm search-budget`: finds the number of an adaptive budget that leaves out a given percentage of objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastsam3d.basics.options import (
    describe_options,
    number_from,
    option,
    optional,
    optional_text,
    parse_options,
    whole,
)
from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError

if TYPE_CHECKING:
    from fastsam3d.mllm.predictor.budget_search import FoundBudget

COMMAND = "python -m fastsam3d mllm search-budget"
ROOMS, QUESTIONS = 71, 18
RULES = ("mass", "threshold")  # as in fastsam3d.mllm.budgets, which help does not need to load
ABOUT = """\
The number is alpha for rule=mass, and times for rule=threshold. With maps=FILE the search uses stored maps, for
instance those of `mllm predict`, and runs no model. It then takes the mean within each data set of the file, and the
mean of these means, as in Fast3D."""


def _rule(text: str) -> str:
    if text not in RULES:
        raise ValueError(" or ".join(RULES))
    return text


@dataclass(frozen=True)
class SearchBudgetOptions:
    """Options of the command."""

    target: float = option(90.0, number_from(0.0, 100.0), "percentage of the objects to leave out, on average")
    rule: str = option("mass", _rule, "rule of the budget: mass (as in Fast3D) or threshold")
    maps: str | None = option(None, optional_text, "file of stored maps, instead of the small model")
    model: str | None = option(None, optional_text, "folder of a small model that you trained; null: the shipped one")
    rooms: int | None = option(None, optional(whole(1)), f"rooms of 30 to 100 objects that are made; null: {ROOMS}")
    questions: int | None = option(None, optional(whole(1)), f"questions about each room; null: {QUESTIONS}")


def main(words: list[str]) -> int:
    """Searches and prints what it found; returns the exit code.

    Raises:
        UserError: an unknown key, a target that cannot be reached, or a missing file.
    """
    if asks_for_help(words):
        say(f"{describe_options(SearchBudgetOptions, COMMAND)}\n\n{ABOUT}\n")
        return 0
    options = parse_options(SearchBudgetOptions, words, "mllm search-budget")
    others = [name for name in ("model", "rooms", "questions") if getattr(options, name) is not None]
    if options.maps is not None and others:
        raise UserError(f"mllm search-budget: maps and {others[0]} are two sources: give one of them")
    console = Console()
    with console.progress():
        found, of_what = _of_file(options, console) if options.maps is not None else _of_rooms(options, console)
    say(
        f"pruning.{found.number}={found.value:.6f} (pruning.budget={found.rule}) leaves out {found.percent:.2f} % of "
        f"the objects on average{of_what}; "
        f"{found.fewest} to {found.most} of them stay.\n"
    )
    return 0


def _of_rooms(options: SearchBudgetOptions, console: Console) -> tuple[FoundBudget, str]:
    from fastsam3d.mllm.mini.budget_search import find_budget
    from fastsam3d.mllm.mini.loading import load_small_model

    console.step("predicting")
    model = load_small_model(options.model)
    return find_budget(model, options.target, options.rooms or ROOMS, options.questions or QUESTIONS, options.rule), ""


def _of_file(options: SearchBudgetOptions, console: Console) -> tuple[FoundBudget, str]:
    from fastsam3d.mllm.predictor.budget_search import search_stored_budget
    from fastsam3d.mllm.predictor.stored_maps import load_maps

    console.step("searching")
    maps = load_maps(str(options.maps))
    sets = f" over {len(maps.sets)} sets" if len(maps.sets) > 1 else ""
    return search_stored_budget(maps, options.target, options.rule), f"{sets}, {len(maps.maps)} questions"
