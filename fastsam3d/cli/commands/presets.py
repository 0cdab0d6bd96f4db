"""`presets`: lists the presets, prints the file of one, or explains every key."""

from __future__ import annotations

from fastsam3d.basics.config_files import config_directory, preset_names
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cli.console import say
from fastsam3d.cli.flags import PARAMETERS, asks_for_help, wrapped
from fastsam3d.errors import UserError

USAGE = """\
usage: python -m fastsam3d presets [NAME | --cite NAME | --keys]

Without arguments lists the presets of acceleration; NAME prints one as YAML; --keys lists every key that a
preset or the command line can set, with its meaning, its range, and the flag of Fast-SAM3D that sets it.
--cite NAME prints the works to cite for a preset as BibTeX: this software, the model, and the papers of the
techniques that are on. It knows the presets of language models too.
"""


def main(words: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: an unknown preset or flag.
    """
    if asks_for_help(words):
        say(USAGE)
        return 0
    if words == ["--keys"]:
        say(_keys())
        return 0
    if words[:1] == ["--cite"]:
        from fastsam3d.cli.citations import bibtex

        if len(words) != 2:
            raise UserError("presets --cite takes one preset, for instance: presets --cite balanced")
        say(bibtex(words[1]))
        return 0
    if len(words) > 1 or any(word.startswith("-") for word in words):
        raise UserError("presets takes one name, --cite NAME, --keys, or nothing. See --help.")
    if words:
        if words[0] not in preset_names():
            raise UserError(f"unknown preset {words[0]!r}. {suggestion(words[0], preset_names())}")
        say((config_directory() / "acceleration" / f"{words[0]}.yaml").read_text(encoding="utf-8"))
        return 0
    say(listing())
    return 0


RANK = {"off": 0, "exact": 1, "accurate": 2, "balanced": 3, "balanced_12": 4, "paper": 5, "fast": 6}
"""Order of the listing: from the least that is skipped to the most."""


def listing() -> str:
    """All presets with their descriptions, grouped by kind."""
    from fastsam3d.acceleration.presets import KINDS, preset_info

    known = [preset_info(name) for name in preset_names()]
    width = max(len(info.name) for info in known)
    blocks = []
    for kind, heading in KINDS.items():
        members = sorted(
            (info for info in known if info.kind == kind),
            key=lambda info: (RANK.get(info.name, len(RANK)), info.name),
        )
        if members:
            blocks.append(f"{heading}:")
            blocks += [f"  {info.name:<{width}}  {info.description}" for info in members]
            blocks.append("")
    blocks += [
        "Use one with acceleration=NAME; print one with: python -m fastsam3d presets NAME",
        "Cite one with: python -m fastsam3d presets --cite NAME",
        "",
    ]
    return "\n".join(blocks)


def _keys() -> str:
    from fastsam3d.diffusion.registry import REGISTRY

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
