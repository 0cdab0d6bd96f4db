"""`presets`: what there is, one preset's file, or every key with its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastsam3d.cli.flags import PARAMETERS, wrapped
from fastsam3d.cli.running import say
from fastsam3d.cli.suggestions import suggestion
from fastsam3d.errors import UserError

USAGE = """\
usage: python -m fastsam3d presets [NAME | --keys]

Without arguments lists the presets of acceleration; NAME prints one as YAML; --keys lists every key that a
preset or the command line can set, with its meaning, its range, and the flag of Fast-SAM3D that sets it.
"""


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: an unknown preset or flag.
    """
    from fastsam3d.config import config_directory, preset_names

    words = list(argv)
    if any(word in ("-h", "--help") for word in words):
        say(USAGE)
        return 0
    if words == ["--keys"]:
        say(_keys())
        return 0
    if len(words) > 1 or any(word.startswith("-") for word in words):
        raise UserError("presets takes one name, or --keys, or nothing. See --help.")
    folder = config_directory() / "acceleration"
    if words:
        if words[0] not in preset_names():
            raise UserError(f"unknown preset {words[0]!r}. {suggestion(words[0], preset_names())}")
        say((folder / f"{words[0]}.yaml").read_text(encoding="utf-8"))
        return 0
    width = max(len(name) for name in preset_names())
    order = sorted(preset_names(), key=lambda name: (RANK.get(name, len(RANK)), name))
    lines = [f"{name:<{width}}  {first_comment(folder / f'{name}.yaml')}" for name in order]
    say(
        "\n".join(
            [
                *lines,
                "",
                "Use one with acceleration=NAME; print one with: python -m fastsam3d presets NAME",
                "",
            ]
        )
    )
    return 0


RANK = {"off": 0, "exact": 1, "paper": 2, "balanced": 3, "fast": 4}
"""Order of the listing: from the plainest to the fastest."""


def first_comment(path: Path) -> str:
    """The first line of a YAML file without its sign."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def _keys() -> str:
    from fastsam3d.techniques import REGISTRY

    flags = {key: flag for flag, keys in PARAMETERS.items() for key in keys}
    lines = []
    for group, technique in REGISTRY.items():
        lines.append(f"acceleration.{group}")
        for name, text in technique.config.describe().items():
            flag = flags.get(f"acceleration.{group}.{name}")
            lines.append(f"  .{name}{f'  (--{flag})' if flag else ''}")
            lines.append(wrapped(text, 100, "      "))
        lines.append("")
    return "\n".join(lines)
