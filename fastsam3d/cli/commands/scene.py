"""`scene`: every masked object of a picture, and the scene they form."""

from __future__ import annotations

from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import parse

INTERRUPTED = 130


def main(words: list[str]) -> int:
    """Runs the command; returns its exit code: 1 where some objects failed and the others were written.

    Raises:
        UserError: anything that the caller can mend; nothing was written then.
    """
    arguments = parse(words, scene=True)
    # Imported once the flags are known to be usable: these import PyTorch, which takes seconds.
    from fastsam3d.cli.results import text_of
    from fastsam3d.cli.settings import request_of
    from fastsam3d.jobs.scenes import SceneInterrupted, run_scene

    request = request_of(arguments, scene=True)
    console = Console(arguments.quiet)
    try:
        with console.progress():
            result = run_scene(request, listener=console)
    except SceneInterrupted:
        return INTERRUPTED
    if result.complete and not arguments.as_json:
        return 0  # a note said so
    say(text_of(arguments, result.report, result.paths))
    return 1 if result.failed else 0
