"""`serve`: the reconstruction as an HTTP service, on Ray Serve or in this process."""

from __future__ import annotations

from dataclasses import replace

from fastsam3d.basics.options import describe_options, parse_options
from fastsam3d.cli.commands.batch import MORE, refuse_inputs, split
from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import asks_for_help, parse
from fastsam3d.cluster.service.options import ServeOptions

COMMAND = "python -m fastsam3d serve"


def main(words: list[str]) -> int:
    """Serves until it is interrupted; returns the exit code.

    Raises:
        UserError: options or settings that cannot be used, or a package that is missing.
    """
    if asks_for_help(words):
        say(f"{describe_options(ServeOptions, COMMAND)}\n{MORE.partition('Exit codes')[0]}")
        return 0
    own, others = split(words, ServeOptions)
    options = parse_options(ServeOptions, own, "serve")
    options.check()
    options.token()
    arguments = parse(others, program=COMMAND, scene=True)
    refuse_inputs(arguments, "the service: requests bring their pictures")
    # Imported once the flags are known to be usable: these import PyTorch, which takes seconds.
    from fastsam3d.cli.settings import request_of
    from fastsam3d.cluster.batch.running import on_one_thread

    console = Console(arguments.quiet)
    request = on_one_thread(replace(request_of(arguments, scene=True), output_dir="."))
    for text in request.warnings:
        console.warn(text)

    def tell(address: str) -> None:
        console.note(f"serving at {address}; {address}/docs says how it is used. Ctrl-C ends it.")

    if options.engine == "inline":
        from fastsam3d.cluster.service.plain import serve_here

        serve_here(options, request, tell)
    else:
        from fastsam3d.cluster.service.ray_serve import serve_on_ray

        serve_on_ray(options, request, tell)
    return 0
