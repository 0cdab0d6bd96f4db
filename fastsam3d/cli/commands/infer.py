"""`infer`: one masked object of a picture to GLB, PLY, preview and report."""

from __future__ import annotations

from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import parse


def main(words: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: anything that the caller can mend; nothing was written then.
    """
    arguments = parse(words)
    # Imported once the flags are known to be usable: these import PyTorch, which takes seconds.
    from fastsam3d.cli.results import text_of
    from fastsam3d.cli.settings import request_of
    from fastsam3d.jobs.objects import run_object

    request = request_of(arguments)
    console = Console(arguments.quiet)
    with console.progress():
        result = run_object(request, listener=console)
    say(text_of(arguments, result.report, result.paths))
    return 0
