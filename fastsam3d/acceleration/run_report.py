"""Common parts of the reports of all families: totals, and a table of plain values as CSV and HTML."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fastsam3d.basics.files import write_text

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Total:
    """Sums over everything that a report covers.

    Attributes:
        seconds: wall clock of the accelerated runs.
        flop_untouched: floating-point operations that the untouched model would have computed; 0 where unknown.
        flop_computed: floating-point operations that were computed; 0 where unknown.
    """

    seconds: float
    flop_untouched: float
    flop_computed: float

    @property
    def fewer_operations(self) -> float:
        """Returns how many times fewer operations were computed; 1 if they are unknown."""
        return self.flop_untouched / self.flop_computed if self.flop_computed and self.flop_untouched else 1.0


class RunReport(Protocol):
    """Result of `Acceleration.report`. Each family's report has further attributes, of type Any for type checkers."""

    preset: str
    techniques: tuple[str, ...]

    @property
    def total(self) -> Total:
        """Returns sums over all stages and runs."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, strings, lists and dicts, ready for JSON."""

    def to_csv(self, path: str | Path | None = None) -> str:
        """Returns the table as CSV, with a header line."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class TabularReport(ABC):
    """Base of reports that have a table: it can be written as CSV, and notebooks show it as HTML."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Returns the table as plain values: one dict per row, all with the same keys."""

    def to_csv(self, path: str | Path | None = None) -> str:
        """Returns the table as CSV, with a header line and unrounded numbers. Sums are in `total`, not in the table.

        Args:
            path: file to which the table is written, too. It is written completely or not at all.

        Example:
            >>> report.to_csv("report.csv")                                         # doctest: +SKIP
            >>> pandas.read_csv("report.csv")                                       # doctest: +SKIP
        """
        text = csv_text(self.rows())
        if path is not None:
            write_text(Path(path), text)
        return text

    def _repr_html_(self) -> str:
        """Returns HTML for a notebook: the table, and the report in words."""
        return f"{html_table(self.rows())}<pre>{escape(str(self))}</pre>"


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of an aligned table with a line under its header; only the first column is aligned left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return lines


def csv_text(rows: Sequence[Row]) -> str:
    """Returns rows with the same keys as CSV (RFC 4180, with line feeds); empty without rows. None is an empty cell."""
    if not rows:
        return ""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def html_table(rows: Sequence[Row]) -> str:
    """Returns rows with the same keys as an HTML table; numbers are rounded to four digits."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row.values())}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
