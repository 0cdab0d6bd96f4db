"""`python -m fastsam3d VERB ...`."""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastsam3d.basics.version import __version__
from fastsam3d.cli.interpreter import old_python, wrong_python
from fastsam3d.errors import UserError

INTERRUPTED_TEXT = "interrupted"
NOTHING_LEFT = "interrupted; nothing was written"
GOES_ON = "interrupted; what is there is kept, and the same command goes on"


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        module: of `fastsam3d.cli.commands`; it has `main(words) -> exit code`, which answers `--help` without PyTorch.
        text: what the verb does, for the help.
        interrupted: what is said after Ctrl-C.
    """

    module: str
    text: str
    interrupted: str = INTERRUPTED_TEXT

    def main(self, words: list[str]) -> int:
        """Runs the verb; returns the exit code."""
        return int(importlib.import_module(f"fastsam3d.cli.commands.{self.module}").main(words) or 0)


VERBS = {
    "infer": Verb("infer", "one masked object of a picture to GLB, PLY, preview and report", NOTHING_LEFT),
    "scene": Verb("scene", "every masked object of a picture, and the scene they form", NOTHING_LEFT),
    "batch": Verb("batch", "many pictures to a folder each, on one device or on many", GOES_ON),
    "serve": Verb("serve", "serves the reconstruction over HTTP, on one device or on many", "stopped"),
    "view": Verb("view", "shows an object or a scene in the browser"),
    "turntable": Verb("turntable", "draws an object or a scene from all sides, as a strip and a GIF"),
    "finish": Verb("finish", "makes a clean, small, textured mesh of a file", NOTHING_LEFT),
    "presets": Verb("presets", "lists the acceleration presets, prints one, or explains every key"),
    "demo": Verb("demo", "serves a page for trying it in the browser"),
    "download": Verb("download", "fetches the official weights, or those of MoGe, from the Hugging Face Hub", GOES_ON),
    "doctor": Verb("doctor", "tells what is installed and missing, and whether a checkpoint folder is whole"),
    "bench": Verb("evaluation.bench", "compares presets on held-out objects: seconds and quality"),
    "flops": Verb("evaluation.flops", "counts the operations of every stage under every preset"),
    "tune": Verb("evaluation.tune", "searches the cheapest setting within a quality budget, writes a preset"),
    "quality": Verb("evaluation.quality", "measures the untouched pipeline on held-out objects", GOES_ON),
    "scene-quality": Verb("evaluation.scene_quality", "checks that a preset moves nothing in a scene", NOTHING_LEFT),
    "marking-quality": Verb("evaluation.marking_quality", "measures how well the page finds objects from clicks"),
    "train": Verb("train", "trains the small model on procedural objects, or runs one program of it", GOES_ON),
    "mllm": Verb("mllm.dispatch", "3D language models: asks the small one about a room, evaluates Chat-Scene, trains"),
    "loss-curves": Verb("evaluation.loss_curves", "draws the losses of a training run"),
    "examples": Verb("examples", "writes the bundled example pictures again"),
}

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
DEFECT = 1
USER_ERROR = 2
INTERRUPTED = 130
TRACEBACK = "--traceback"

HELP = "\n".join(
    [
        "usage: python -m fastsam3d VERB [flags] [key=value ...]",
        "",
        "Training-free acceleration for SAM 3D Objects: a picture and a mask in, a 3D object out.",
        "",
        *(f"  {name:<16} {verb.text}" for name, verb in VERBS.items()),
        "",
        "python -m fastsam3d VERB --help says more; --version prints the version.",
        "--traceback, with any verb, shows where in the program an error was raised.",
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
    return guarded(lambda rest: _command(verb, rest), words)


def guarded(command: Callable[[list[str]], int], argv: list[str]) -> int:
    """Runs a command; returns its exit code.

    What the user can mend ends in a line on stderr, exit code 2. So does every other exception, with exit code 1 and
    the place where it was raised; with `--traceback` among the words its whole traceback is shown.
    """
    traced = TRACEBACK in argv
    argv = [word for word in argv if word != TRACEBACK]
    _prepare_streams()
    if threading.current_thread() is threading.main_thread():
        # So that temporary files are removed when a job is cancelled.
        previous: Any = signal.signal(signal.SIGTERM, _terminate)
    else:
        previous = None
    try:
        if (too_old := old_python()) is not None:
            raise UserError(too_old)
        code = command(argv)
        sys.stdout.flush()  # a closed pipe or a full disk is told here, and not by Python at exit
        return code
    except UserError as error:
        if traced:
            traceback.print_exc()
        text = str(error)
    except BrokenPipeError:
        _drop_output()  # a reader such as `head` has seen enough
        return 0
    except KeyboardInterrupt:
        print(NOTHING_LEFT, file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if traced:
            traceback.print_exc()
        expected = _expected(error)
        if expected is None:
            print(f"error: {_defect(error)}", file=sys.stderr)
            return DEFECT
        if isinstance(error, OSError):
            _drop_output()
        text = expected
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
    print(f"error: {text[:1].lower() if text[1:2].islower() else text[:1]}{text[1:]}", file=sys.stderr)
    return USER_ERROR


def _expected(error: Exception) -> str | None:
    """The sentence of an exception that the user can mend; None for any other."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return f"the disk is full ({error.strerror}): make room, or write to another one. What was begun is removed."
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"{error.filename} may not be used by you ({error.strerror}). Change its permissions."
    if type(error).__name__ == "OutOfMemoryError":
        return (
            "the device has not enough memory for this model. Use precision=bfloat16, close other programs on the "
            "device, or device=cpu."
        )
    if isinstance(error, ModuleNotFoundError):
        return wrong_python(error)
    if isinstance(error, MemoryError):
        return "this machine has not enough memory for it. Use smaller inputs, or close other programs."
    return None


def _defect(error: Exception) -> str:
    """One line about an exception that nobody expected: what, where, and how to see more."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    return f"something went wrong inside ({what}{where}). The same command with {TRACEBACK} shows the whole report."


def _prepare_streams() -> None:
    """Replaces streams that the shell has closed, and lets names that are no text be written as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is left to be written goes nowhere: Python would complain at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no real file, as under tests
        return


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
    return _command(verb, rest)


def _command(name: str, words: list[str]) -> int:
    from fastsam3d.basics.threads.openmp import set_openmp_defaults

    verb = VERBS[name]
    set_openmp_defaults(os.environ)  # before PyTorch is loaded, which the verb does
    try:
        return verb.main(words)
    except KeyboardInterrupt as error:
        print(str(error) or verb.interrupted, file=sys.stderr)  # a job knows best what it has kept
        return INTERRUPTED


def _terminate(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
