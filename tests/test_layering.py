"""Who may import whom, read from the source: the two wings know nothing of one another, and nothing goes in circles."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from fastsam3d.evaluation.measuring.provenance import MEASURING, NOT_MEASURED

PACKAGE = Path(__file__).resolve().parents[1] / "fastsam3d"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

MATHS = ("forecast", "spectral", "lattice", "tensor_versions")
BASICS = ("errors", "config_files")
JOINT = (
    "acceleration", "attachment", "session", "batching", "stacking", "config", "ledger", "report", "magcache_curves",
)  # fmt: skip
"""What brings hosts and techniques together."""
ACCELERATION = (*JOINT, "hosts", "techniques", "sites", "patching", "savings", *MATHS)
MAY_IMPORT = {
    # Pure maths, and what both wings may use.
    "forecast": ("forecast",),
    **dict.fromkeys(("spectral", "lattice", "tensor_versions", "errors", "sites", "patching", "savings"), ()),
    "config_files": ("errors",),
    # The pipeline wing would run without the other.
    "models": ("models", *BASICS),
    "pipeline": ("pipeline", "models", *BASICS),
    "procedural": ("procedural", *BASICS),
    "training": (
        *("training", "procedural", "pipeline", "models", *BASICS),
        *("evaluation.metrics", "cli.options", "__main__"),  # of `__main__` what a program's errors end in
    ),
    # The acceleration wing: techniques know no pipeline; hosts know where things are in one, and no technique's policy.
    "techniques": ("techniques", "sites", "errors", *MATHS),
    "hosts": (
        *("hosts", "techniques.base", "sites", "patching", "lattice", "tensor_versions", "models", "pipeline"),
        *BASICS,
    ),
    **dict.fromkeys(JOINT, (*ACCELERATION, *BASICS)),
}
"""Parts of the package below the command line, the demo and the evaluation, which see everything."""


def imported_names(path: Path) -> set[str]:
    """Everything that a file imports, at the top, for type checkers or in a function; no import here is relative."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in whole}
    return names


IMPORTS = {name: imported_names(path) for name, path in MODULES.items()}


def is_within(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == f"fastsam3d.{part}" or name.startswith(f"fastsam3d.{part}.") for part in parts)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_it_may_know(part: str) -> None:
    files = [name for name in MODULES if is_within(name, (part,))]
    assert files
    strangers = {
        (name, target)
        for name in files
        for target in IMPORTS[name] & MODULES.keys()
        if not is_within(target, MAY_IMPORT[part])
    }
    assert strangers == set()


def test_maths_needs_nothing_but_tensors_and_arrays() -> None:
    files = [name for name in MODULES if is_within(name, MATHS)]
    outside = {target.partition(".")[0] for name in files for target in IMPORTS[name]} - {"__future__", "fastsam3d"}
    assert outside <= {"torch", "numpy", "math", "collections", "dataclasses", "typing"}


def test_the_fingerprint_of_a_benchmark_covers_what_measures() -> None:
    reached: set[str] = set()
    ahead = {"fastsam3d.evaluation.measuring.runner", "fastsam3d.evaluation.measuring.scene_runner"}
    while ahead:
        reached |= ahead
        ahead = {target for name in ahead for target in IMPORTS[name] & MODULES.keys()} - reached
    places = [name.split(".")[1:] for name in reached]
    assert {place[1] for place in places if place[0] == "evaluation"} == set(MEASURING)
    assert not {place[0] for place in places} & set(NOT_MEASURED)


def test_no_import_goes_in_a_circle() -> None:
    circle: list[str] = []
    try:
        TopologicalSorter({name: names & (MODULES.keys() - {name}) for name, names in IMPORTS.items()}).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert circle == []
