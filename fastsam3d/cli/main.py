"""`python -m fastsam3d VERB ...`."""

from __future__ import annotations

import errno
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from fastsam3d.basics.version import __version__
from fastsam3d.errors import UserError

VERBS = {
    "infer": ("fastsam3d.cli.commands.infer", "one masked object of a picture to GLB, PLY, preview and report"),
    "scene": ("fastsam3d.cli.commands.scene", "every masked object of a picture, and the scene they form"),
    "view": ("fastsam3d.cli.commands.view", "shows an object or a scene in the browser"),
    "turntable": (
        "fastsam3d.cli.commands.turntable",
        "draws an object or a scene from all sides, as a strip and a GIF",
    ),
    "presets": ("fastsam3d.cli.commands.presets", "lists the acceleration presets, prints one, or explains every key"),
    "demo": ("fastsam3d.cli.commands.demo", "serves a page for trying it in the browser"),
    "download": (
        "fastsam3d.cli.commands.download",
        "fetches the official weights, or those of MoGe, from the Hugging Face Hub",
    ),
    "doctor": (
        "fastsam3d.cli.commands.doctor",
        "tells what is installed and missing, and whether a checkpoint folder is whole",
    ),
    "bench": ("fastsam3d.evaluation.benchmark.run", "compares presets on held-out objects: seconds and quality"),
    "flops": ("fastsam3d.evaluation.operations.table", "counts the operations of every stage under every preset"),
    "tune": (
        "fastsam3d.evaluation.tuning.tune",
        "searches the cheapest setting within a quality budget, writes a preset",
    ),
    "train": ("fastsam3d.cli.commands.train", "trains the small model on procedural objects"),
}
"""Verb to module, and what it does. A module has `main(words) -> exit code`, or for those below `run(arguments)`."""
OPTIONS = {
    "bench": ("fastsam3d.evaluation.benchmark.options", "BenchmarkOptions", ""),
    "flops": ("fastsam3d.evaluation.operations.options", "FlopsOptions", " [--json]"),
    "tune": ("fastsam3d.evaluation.tuning.options", "TuneOptions", ""),
}
"""Module, class and flags of the options of verbs that import PyTorch: their help is answered without it."""
PIPELINE_VERBS = ("infer", "scene")
RESUMABLE_VERBS = ("download", "train")
"""Those that leave something on disk when they are interrupted, and take it up again."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
USER_ERROR = 2
INTERRUPTED = 130

HELP = "\n".join(
    [
        "usage: python -m fastsam3d VERB [flags] [key=value ...]",
        "",
        "Training-free acceleration for SAM 3D Objects: a picture and a mask in, a 3D object out.",
        "",
        *(f"  {verb:<9} {text}" for verb, (_, text) in VERBS.items()),
        "",
        "python -m fastsam3d VERB --help says more; --version prints the version.",
        "",
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(_dispatch, words)


def run(verb: str, argv: Sequence[str] | None = None) -> int:
    """One verb as a program of its own, for the scripts at the top of the repository."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda rest: _command(verb, rest, sys.argv[0]), words)


def guarded(command: Callable[[list[str]], int], argv: list[str]) -> int:
    """Runs a command; what the user can mend ends in a line on stderr instead of a traceback."""
    if threading.current_thread() is threading.main_thread():
        # So that temporary files are removed when a job is cancelled.
        previous: Any = signal.signal(signal.SIGTERM, _terminate)
    else:
        previous = None
    try:
        return command(argv)
    except UserError as error:
        text = str(error)
    except BrokenPipeError:
        sys.stderr.close()  # a reader such as `head` has seen enough; Python would complain at exit
        return 0
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        text = f"the disk is full ({error.strerror}): make room, or write to another one. What was begun is removed."
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        text = (
            "the device has not enough memory for this model. Use precision=bfloat16, close other programs on the "
            "device, or device=cpu."
        )
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
    print(f"error: {text[:1].lower() if text[1:2].islower() else text[:1]}{text[1:]}", file=sys.stderr)
    return USER_ERROR


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"fastsam3d {__version__}\n")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        from fastsam3d.basics.suggestions import suggestion

        raise UserError(f"unknown verb {verb!r}. {suggestion(verb, VERBS)}")
    return _command(verb, rest, f"python -m fastsam3d {verb}")


def _command(verb: str, words: list[str], program: str) -> int:
    module = VERBS[verb][0]
    if verb in PIPELINE_VERBS:
        # Parsed before anything large is imported: help and mistyped flags answer at once.
        from fastsam3d.cli.flags import parse

        arguments = parse(words, program, scene=verb == "scene")
        return int(importlib.import_module(module).run(arguments))
    if verb in OPTIONS and {"-h", "--help"} & set(words):
        from fastsam3d.basics.options import describe_options

        place, name, flags = OPTIONS[verb]
        options = getattr(importlib.import_module(place), name)
        print(describe_options(options, f"python -m fastsam3d {verb}{flags}"))
        return 0
    try:
        return int(importlib.import_module(module).main(words) or 0)
    except KeyboardInterrupt:
        goes_on = "; what is there is kept, and the same command goes on" if verb in RESUMABLE_VERBS else ""
        print(f"interrupted{goes_on}", file=sys.stderr)
        return INTERRUPTED


def _terminate(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


