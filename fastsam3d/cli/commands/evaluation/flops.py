"""`flops`: operations of every stage under every preset, at any size, without weights or a GPU."""

from __future__ import annotations

import json

from fastsam3d.basics.options import describe_options, parse_options
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.evaluation.operations.options import FlopsOptions

COMMAND = "python -m fastsam3d flops"
JSON_FLAG = "--json"


def main(words: list[str]) -> int:
    """Counts, prints the table; returns the exit code.

    Raises:
        UserError: an unknown key, model or preset.
    """
    if asks_for_help(words):
        print(describe_options(FlopsOptions, f"{COMMAND} [{JSON_FLAG}]"))
        return 0
    options = parse_options(FlopsOptions, [word for word in words if word != JSON_FLAG], COMMAND)
    from fastsam3d.evaluation.operations.table import count_presets, render

    table = count_presets(options)
    print(json.dumps(table, indent=1) if JSON_FLAG in words else render(table))
    return 0
