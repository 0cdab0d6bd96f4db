"""`batch`: many pictures to a folder each, an index and one report, on one device or on many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from fastsam3d.basics.options import describe_options, parse_options
from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import INPUTS, Arguments, asks_for_help, parse
from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.errors import UserError

COMMAND = "python -m fastsam3d batch"
NOT_HERE = tuple(key for key in (*INPUTS, "name", "resume") if key not in ("seed", "pointmap"))
"""Settings that the items or the options of a batch say."""
MORE = """
Beside these every setting and flag of `infer` and `scene` that is none of their inputs: acceleration=balanced,
--export glb, --faces 5000, seed=3, model=sam3d checkpoint_dir=DIR, device=cuda, --json, --quiet, ...
Options may be written as flags too: --input photos --output out --workers 2 --no-resume.

Exit codes: 0 done, 1 some items failed (see the index), 2 unusable input or settings, 130 interrupted.
docs/scaling.md is the guide.
"""


def main(words: list[str]) -> int:
    """Runs the command; returns its exit code: 1 where some items failed.

    Raises:
        UserError: anything that the caller can mend.
    """
    if asks_for_help(words):
        say(f"{describe_options(BatchOptions, COMMAND)}\n{MORE}")
        return 0
    own, others = split(words)
    options = parse_options(BatchOptions, own, "batch")
    arguments = parse(others, program=COMMAND, scene=True)
    refuse_inputs(arguments, "a batch: give input=FOLDER, a pattern or a manifest, and output=FOLDER")
    # Imported once the flags are known to be usable: these import PyTorch, which takes seconds.
    from fastsam3d.cli.settings import request_of
    from fastsam3d.cluster.batch.running import run_batch
    from fastsam3d.jobs.output_folder import json_text

    console = Console(arguments.quiet)
    request = request_of(arguments, scene=True)
    with console.progress():
        result = run_batch(options, replace(request, output_dir="."), console)
    say(json_text(result.report) if arguments.as_json else "" if arguments.quiet else render(result.report))
    return 1 if result.failed else 0


def split(words: Sequence[str], options: type = BatchOptions) -> tuple[list[str], list[str]]:
    """(words that are options, as key=value; the other words).

    Args:
        options: a dataclass of `fastsam3d.basics.options.option` fields.
    """
    known = {item.name: item for item in fields(options)}
    own, others = [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        key = flag.lstrip("-").replace("-", "_")
        if key == "no_resume" and "resume" in known and flag.startswith("--"):
            own.append("resume=false")
        elif key not in known:
            others.append(word)
        elif equals:
            own.append(f"{key}={value}")
        elif not word.startswith("--"):
            others.append(word)
        elif isinstance(known[key].default, bool):
            own.append(f"{key}=true")
        elif rest:
            own.append(f"{key}={rest.pop(0)}")
        else:
            raise UserError(f"--{key} needs a value. See --help.")
    return own, others


def render(report: dict[str, Any]) -> str:
    """The report of a batch as text."""
    states = ", ".join(f"{count} {status}" for status, count in sorted(report["statuses"].items()))
    fresh = report["items"] - report["reused"]
    rate = f"{report['objects']} objects" if not fresh else f"{fresh} items in {report['run_seconds']:.1f} s"
    lines = [f"{report['items']} items: {states}", f"{rate}, {report['evaluations']} network runs"]
    lines += [f"  {item['name']}: {item['error']}" for item in report["failures"]]
    more = report["items"] - report["statuses"].get("ok", 0) - len(report["failures"])
    if more > 0:
        lines.append(f"  and {more} more, see {report['index']}")
    return "\n".join([*lines, ""])


def refuse_inputs(arguments: Arguments, what: str) -> None:
    """Refuses settings that say what one job reads and writes.

    Args:
        what: they are not for, with the way out.

    Raises:
        UserError: one was given.
    """
    given = {*arguments.origins, *(word.partition("=")[0].lstrip("+") for word in arguments.overrides)}
    for key in NOT_HERE:
        if key in given:
            raise UserError(f"{key} is not for {what}.")
