"""Processes of the local Ray that a process has started. Other programs of the machine may run a Ray of their own."""

from __future__ import annotations

from pathlib import Path


def started_by(process: int, title: str) -> list[int]:
    """Descendants of a process whose command's name begins or ends with a title."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            facts = (folder / "stat").read_text().rpartition(")")[2].split()
            name = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(facts[1])
        if facts[0] != "Z" and (name.startswith(title) or name.endswith(title)):
            found.append(int(folder.name))
    return [own for own in sorted(found) if _is_below(own, process, parents)]


def _is_below(own: int, process: int, parents: dict[int, int]) -> bool:
    while own > 1:
        own = parents.get(own, 0)
        if own == process:
            return True
    return False
