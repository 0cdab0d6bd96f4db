"""Who may import whom, read from the source: arrows go down. Folders are named here, never single files."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from fastsam3d.evaluation.measuring.provenance import MEASURING, NOT_MEASURED

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fastsam3d"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
ROOM_FOR_FILES = 15
"""Files that a folder of the package may hold beside folders."""

GROUND = ("basics", "errors")
MODELS = ("sam3d", "meshes", "modules")
WINGS = ("diffusion", "mllm")
MAY_IMPORT = {
    "errors": (),
    "basics": ("errors",),
    "procedural": GROUND,
    "marking": GROUND,
    "modules": GROUND,
    "meshes": ("modules", *GROUND),
    "sam3d": ("meshes", "modules", *GROUND),
    "acceleration": GROUND,
    "diffusion": ("acceleration", *MODELS, *GROUND),
    "mllm": ("acceleration", "procedural", *GROUND),
    "training": ("evaluation", "marking", "mllm", "procedural", *MODELS, *GROUND),
    "evaluation": (*WINGS, "acceleration", "marking", "procedural", *MODELS, *GROUND),
    "jobs": (*WINGS, "acceleration", "marking", *MODELS, *GROUND),
    "app": ("jobs", *WINGS, "acceleration", "marking", "procedural", *MODELS, *GROUND),
    "cluster": ("jobs", *WINGS, "acceleration", *MODELS, *GROUND),
    "cli": (
        *("app", "cluster", "jobs", "training", "evaluation", *WINGS),
        *("acceleration", "marking", "procedural", *MODELS, *GROUND),
    ),
}
"""What the folders of the package may import beside themselves. A wing never imports the other."""
INSIDE_DIFFUSION = {
    "maths": (),
    "techniques": ("maths", "sites", "capabilities", "registry", "vocabulary"),
    "hosts": ("maths", "partial", "sites", "capabilities", "vocabulary", "host", "evaluations"),
    "partial": ("maths", "sites", "vocabulary", "capabilities"),
}
"""What the folders of diffusion may import of diffusion.

Techniques and maths know no host; hosts know no technique and no exact saving."""
LOADED_LATE = {"transformers": "mllm", "ray": "cluster", "gradio": "app", "playwright": "", "spconv": ""}
"""Packages that one folder alone may import, and there inside functions only."""


def imported_names(tree: ast.AST) -> set[str]:
    """Everything that a tree imports, at the top, for type checkers or in a function; no import here is relative."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{ast.unparse(node)}: write imports in full"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in whole}
    return names


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
IMPORTS = {name: imported_names(tree) for name, tree in TREES.items()}


def folder_of(name: str, base: str = "fastsam3d") -> str:
    """The part of a module's name after `base`; "" for the base itself."""
    return name.removeprefix(base).lstrip(".").partition(".")[0]


def strangers(files: list[str], allowed: tuple[str, ...], base: str = "fastsam3d") -> set[tuple[str, str]]:
    """(module, what it imports) for all imports inside `base` that are not allowed."""
    inside = {(name, t) for name in files for t in IMPORTS[name] & MODULES.keys() if t.startswith(f"{base}.")}
    return {(name, t) for name, t in inside if folder_of(t, base) not in (folder_of(name, base), *allowed)}


@pytest.mark.parametrize("folder", sorted({folder_of(name) for name in MODULES} - {"", "__main__"}))
def test_a_folder_imports_only_what_it_may_know(folder: str) -> None:
    files = [name for name in MODULES if folder_of(name) == folder]
    assert strangers(files, MAY_IMPORT[folder]) == set()


@pytest.mark.parametrize("folder", INSIDE_DIFFUSION)
def test_the_folders_of_diffusion_import_only_what_they_may_know(folder: str) -> None:
    base = "fastsam3d.diffusion"
    files = [name for name in MODULES if name.startswith(f"{base}.") and folder_of(name, base) == folder]
    assert files
    assert strangers(files, INSIDE_DIFFUSION[folder], base) == set()


def test_only_the_native_host_imports_our_own_pipeline() -> None:
    users = {name for name in MODULES if folder_of(name) == "diffusion" and any(map(_is_pipeline, IMPORTS[name]))}
    native = "fastsam3d.diffusion.hosts.native"
    # The host of the official pipeline takes the sizes of its networks from there, to count operations.
    sizes = "fastsam3d.diffusion.hosts.sam3d_objects.host"
    assert {name for name in users if not name.startswith(native)} <= {sizes}
    assert all(t.startswith("fastsam3d.sam3d.models.") for t in IMPORTS[sizes] if _is_pipeline(t))


def _is_pipeline(name: str) -> bool:
    return folder_of(name) == "sam3d"


def test_only_the_entry_points_import_the_command_line() -> None:
    users = {name for name in MODULES if any(folder_of(t) == "cli" for t in IMPORTS[name])}
    assert {folder_of(name) for name in users} <= {"cli", "__main__"}
    assert not any("fastsam3d.__main__" in names for names in IMPORTS.values())


def test_large_packages_are_imported_late_and_in_one_folder() -> None:
    for name, tree in TREES.items():
        top = imported_names(ast.Module([n for n in tree.body if not isinstance(n, ast.If)], []))
        late = {t.partition(".")[0] for t in _at_the_top(top, tree)} & LOADED_LATE.keys()
        assert not late or folder_of(name) == "app", f"{name} imports {late} when it is imported itself"
        used = {t.partition(".")[0] for t in IMPORTS[name]} & LOADED_LATE.keys()
        assert all(LOADED_LATE[package] == folder_of(name) for package in used), (name, used)


def _at_the_top(names: set[str], tree: ast.Module) -> set[str]:
    """Those of the imported names that no function imports."""
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside |= imported_names(node)
    return names - inside


def test_maths_needs_nothing_but_tensors_and_arrays() -> None:
    files = [name for name in MODULES if name.startswith("fastsam3d.diffusion.maths")]
    outside = {target.partition(".")[0] for name in files for target in IMPORTS[name]} - {"__future__", "fastsam3d"}
    assert outside <= {"torch", "numpy", "math", "collections", "dataclasses", "typing"}


def test_the_fingerprint_of_a_benchmark_covers_what_measures() -> None:
    reached: set[str] = set()
    ahead = {"fastsam3d.evaluation.measuring.runner", "fastsam3d.evaluation.measuring.scene_runner"}
    while ahead:
        reached |= ahead
        ahead = {target for name in ahead for target in IMPORTS[name] & MODULES.keys()} - reached
    places = [name.split(".")[1:] for name in reached]
    assert {place[1] for place in places if place[0] == "evaluation" and len(place) > 1} == set(MEASURING)
    assert not {place[0] for place in places if place} & set(NOT_MEASURED)


def test_no_import_goes_in_a_circle() -> None:
    circle: list[str] = []
    try:
        TopologicalSorter({name: names & (MODULES.keys() - {name}) for name, names in IMPORTS.items()}).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert circle == []


def test_three_modules_are_at_the_root() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_no_folder_is_a_drawer() -> None:
    folders = [folder for folder in PACKAGE.rglob("*") if folder.is_dir() and folder.name != "__pycache__"]
    sizes = {folder: sum(path.is_file() and path.suffix != ".pyc" for path in folder.iterdir()) for folder in folders}
    full = {str(folder.relative_to(ROOT)): size for folder, size in sizes.items() if size > ROOM_FOR_FILES}
    assert full == {}
