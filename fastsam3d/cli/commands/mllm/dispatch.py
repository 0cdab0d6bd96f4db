"""`mllm`: what can be done with 3D language models, one sub-verb a file."""

from __future__ import annotations

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cli.console import say
from fastsam3d.cli.main import GOES_ON, Verb
from fastsam3d.errors import UserError

COMMAND = "python -m fastsam3d mllm"

SUB_VERBS = {
    "ask": Verb("mllm.ask", "asks about a room, without pruning and with it, and draws what was pruned"),
    "bench": Verb("mllm.bench", "compares presets on held-out rooms by scores, milliseconds and memory"),
    "train": Verb("mllm.train", "trains the small model or an attention predictor", GOES_ON),
    "extract": Verb("mllm.extract", "stores attention maps of Chat-Scene for the questions of its benchmarks", GOES_ON),
    "predict": Verb("mllm.predict", "stores the attention maps that a predictor gives for these questions", GOES_ON),
    "evaluate": Verb("mllm.evaluate", "runs Chat-Scene on its benchmarks, plain or pruned, and scores it", GOES_ON),
    "search-budget": Verb(
        "mllm.search_budget",
        "finds the adaptive budget that leaves out a given percentage of the objects",
    ),
}
"""Sub-verbs by name. The module is one of `fastsam3d.cli.commands`, as in `fastsam3d.cli.main.VERBS`."""

HELP = "\n".join(
    [
        f"usage: {COMMAND} VERB [words] [key=value ...]",
        "",
        "3D language models: a small one that comes with the package and answers questions about rooms full of",
        "objects, and Chat-Scene, whose files you provide.",
        "",
        *(f"  {name:<14} {verb.text}" for name, verb in SUB_VERBS.items()),
        "",
        f"{COMMAND} VERB --help lists its options.",
        "",
    ]
)


def main(words: list[str]) -> int:
    """Runs a sub-verb; returns its exit code.

    Raises:
        UserError: there is no such sub-verb, or it cannot do what it was asked.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        say(HELP)
        return 0
    name, rest = words[0], words[1:]
    if name not in SUB_VERBS:
        raise UserError(f"mllm: unknown verb {name!r}. {suggestion(name, SUB_VERBS)}")
    try:
        return SUB_VERBS[name].main(rest)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(str(error) or SUB_VERBS[name].interrupted) from None
