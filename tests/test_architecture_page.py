"""Documents that name code: names, paths and links in them exist, and imports follow the architecture page."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fastsam3d.acceleration.family import PLUGINS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fastsam3d"
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OURS = ("fastsam3d/", "docs/", "tests/", "configs/", "benchmarks/", "environments/", "patching/", "examples/")
"""How a path in a document begins that means a file of this repository, and not one of its reader."""
FOLDERS = [p.name for p in sorted(PACKAGE.iterdir()) if p.is_dir() and p.name != "__pycache__"]


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def quoted(document: Path) -> list[str]:
    """What stands in backticks, code blocks apart."""
    prose = re.sub(r"^```.*?^```", "", text_of(document), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


def dotted_names(document: Path) -> set[str]:
    """Names of the package in backticks, and the modules that code blocks import."""
    found = {name for text in quoted(document) for name in re.findall(r"^(fastsam3d(?:\.\w+)+)(?:\(.*)?$", text)}
    return found | set(re.findall(r"^from (fastsam3d[\w.]*) import", text_of(document), flags=re.MULTILINE))


def imported_names(document: Path) -> set[str]:
    """Names that code blocks import from modules of the package."""
    lines = re.findall(r"^from (fastsam3d[\w.]*) import ([\w, ]+)$", text_of(document), flags=re.MULTILINE)
    return {f"{module}.{name.strip()}" for module, names in lines for name in names.split(",")}


def resolve(name: str) -> Any:
    """The module, or the attribute of a module or class, that a dotted name means."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            # Another package that is missing is an error of its own.
            if not (error.name or "").startswith("fastsam3d"):
                raise
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def anchors(document: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_name_in_a_document_exists(document: Path) -> None:
    missing = []
    for name in sorted(dotted_names(document) | imported_names(document)):
        try:
            resolve(name)
        except (ModuleNotFoundError, AttributeError):
            missing.append(name)
    assert set(missing) - {PLUGINS} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_in_a_document_exists(document: Path) -> None:
    paths = {text for text in quoted(document) if re.fullmatch(r"[\w.\-]+(?:/[\w.\-]*)+", text)}
    if document != PAGE:
        paths = {path for path in paths if path.startswith(OURS)}
    missing = [path for path in paths if not (ROOT / path).exists()]
    # A document may ask its reader to make a new file; the folder for it has to be there.
    new = [p for p in missing if document != PAGE and Path(p).suffix and (ROOT / p).parent.exists()]
    assert set(missing) - set(new) == set()


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_every_link_in_a_document_leads_somewhere(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text_of(document)):
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


def test_the_picture_names_files_that_exist() -> None:
    paths = re.findall(r'class="path"[^>]*>([^<]+)<', PICTURE.read_text(encoding="utf-8"))
    named = [path for text in paths if "/" in text for path in text.split(", ")]
    assert len(named) >= 10
    assert [path for path in named if not (PACKAGE / path).exists()] == []


def layers() -> list[str]:
    """Folders of the table, from top to bottom."""
    return re.findall(r"^\|[^|]*\| `fastsam3d/(\w+)/` \|", text_of(PAGE), flags=re.MULTILINE)


def test_the_page_shows_every_folder() -> None:
    assert sorted(layers()) == FOLDERS
    inside = {path.parent.name for path in (PACKAGE / "diffusion").glob("*/*.py")}
    assert {name for name in inside if f"`fastsam3d/diffusion/{name}/`" not in text_of(PAGE)} == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_down_the_table(folder: str) -> None:
    order = layers()
    upwards = []
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                other = name.split(".")[1] if name.startswith("fastsam3d.") else ""
                if other in order and order.index(other) < order.index(folder):
                    upwards.append(f"{path.relative_to(ROOT)} imports {name}")
    assert upwards == []
