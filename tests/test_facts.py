"""Citations of docs/facts.md: each section that code, settings, tests and documents cite exists there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "facts.md"
FOLDERS = ("fastsam3d", "configs", "tests", "benchmarks", "docs", "examples")
NUMBER = r"[SM]\d+(?:\.\d+)?"
LIST = rf"{NUMBER}(?:(?:,\s+and\s+|,\s+|\s+and\s+|\s+to\s+)[#\s]*{NUMBER})*"
CITATION = re.compile(rf"docs/facts\.md,[#\s]+(?:sections?[#\s]+)?({LIST})?")
UNKNOWN_SOURCES = re.compile(r"fact[ -]sheet|[Aa]rchitecture,\s+sections?\s+\d", re.IGNORECASE)


def texts() -> dict[str, str]:
    """Texts of the repository's files, by path; this file is left out."""
    paths = [
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".md")
    ]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in paths if path != Path(__file__)}


def sections() -> set[str]:
    """Numbers of headings, and those in bold."""
    return set(re.findall(rf"^(?:#+ |.*\*\*)({NUMBER})\b", PAGE.read_text("utf-8"), flags=re.MULTILINE)) | set(
        re.findall(rf"\*\*({NUMBER})\*\*", PAGE.read_text("utf-8"))
    )


def cited(text: str) -> list[str]:
    """Numbers that a text cites; "?" for a citation without a number."""
    return [number for group in CITATION.findall(text) for number in (re.findall(NUMBER, group) or ["?"])]


def test_citations_are_found_over_lines_and_in_lists() -> None:
    assert cited("(docs/facts.md,\nsection S8.2)") == ["S8.2"]
    assert cited("docs/facts.md, sections S4.3, S7 and S13") == ["S4.3", "S7", "S13"]
    assert cited("# docs/facts.md, sections\n# M2.2 to M2.5") == ["M2.2", "M2.5"]
    assert cited("docs/facts.md, elsewhere") == ["?"]


def test_every_cited_section_exists() -> None:
    there = sections()
    assert {"S1", "S8.2", "M1.4", "S10.4"} <= there
    found = {path: set(cited(text)) for path, text in texts().items() if path != "docs/facts.md"}
    missing = {path: sorted(numbers - there) for path, numbers in found.items() if numbers - there}
    assert missing == {}
    assert sum(map(len, found.values())) > 50


def test_no_source_is_cited_that_readers_do_not_have() -> None:
    assert [path for path, text in texts().items() if UNKNOWN_SOURCES.search(text)] == []


def test_the_page_names_public_sources() -> None:
    text = PAGE.read_text("utf-8")
    assert "arXiv 2511.16624" in text
    assert "facebookresearch/sam-3d-objects" in text
