"""What `mllm extract` and `mllm predict` share: attention maps for the questions of Chat-Scene, in one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastsam3d.basics.options import describe_options, parse_options
from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import asks_for_help

FILES = "FILES stands for vicuna=DIR checkpoint=FILE annotations=DIR. To resume an interrupted run, repeat the command."


def write_maps(
    verb: str, options_type: type, examples: str, words: list[str], maker: Callable[[], Callable[..., Any]]
) -> int:
    """Makes maps and writes them, with a progress bar; returns the exit code.

    Args:
        verb: after `python -m fastsam3d mllm`.
        options_type: dataclass of the verb's keys.
        examples: for the help; `{command}` stands for the command.
        words: of the command line.
        maker: returns the function that makes the maps. Its imports are slow, so it is not called for the help.

    Raises:
        UserError: an unknown key, a file is missing or cannot be read, or the output holds other maps.
    """
    command = f"python -m fastsam3d mllm {verb}"
    if asks_for_help(words):
        say(f"{describe_options(options_type, command)}\n\n{examples.format(command=command)}\n\n{FILES}\n")
        return 0
    options: Any = parse_options(options_type, words, f"mllm {verb}")
    console = Console()
    make = maker()
    with console.progress():
        maps = make(options, console.step)
    sets = ", ".join(one.name for one in maps.sets)
    say(f"written: {options.output}, {len(maps.maps)} maps ({maps.kind}, rows {maps.rows}) of {sets}\n")
    return 0
