"""A table of plain text, such as the comparisons with a baseline, in every format."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from html import escape

from analysis.tables.csv import for_spreadsheets
from analysis.tables.html import notes_html
from analysis.tables.latex import latex_escape, latex_float, latex_line
from analysis.tables.markdown import markdown_escape
from sweep import text


@dataclass(frozen=True)
class Listing:
    """Rows of text under ``heads``, the first column being their names.

    ``name`` is a file name without ending. ``marks`` has a word for each row, which a page shows as a sign before its
    last cell; no words where nothing is marked. ``prose`` means texts of several lines, which wrap.
    """

    name: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    prose: bool = False


def listing_markdown(listing: Listing) -> str:
    """The listing, its caption and its notes as GitHub Markdown."""
    cells = [[markdown_escape(cell) for cell in row] for row in (listing.heads, *listing.rows)]
    notes = [f"- {markdown_escape(note)}" for note in listing.notes]
    grid = text.table(cells[0], cells[1:], pad=False)
    return "\n".join([grid, "", markdown_escape(listing.caption), "", *notes]) + "\n"


def listing_latex(listing: Listing) -> str:
    r"""The listing as a ``table`` float for the package booktabs."""
    heads, *rows = (latex_line([latex_escape(cell) for cell in row]) for row in (listing.heads, *listing.rows))
    width = len(listing.heads)
    columns = "l" + "r" * (width - 2) + "l"
    if listing.prose:
        columns = rf"*{{{width}}}{{p{{\dimexpr\linewidth/{width}-2\tabcolsep\relax}}}}"
    return latex_float(listing.caption, columns, [heads], rows, listing.notes)


def listing_csv(listing: Listing) -> str:
    """The listing as CSV, its heads first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([for_spreadsheets(cell) for cell in row] for row in (listing.heads, *listing.rows))
    return out.getvalue()


def listing_html(listing: Listing, said: Collection[str] = ()) -> str:
    """The listing as HTML, each row of the class of its mark, without the notes that are ``said`` already."""
    kind = "marked verdicts" if listing.marks else "prose" if listing.prose else ""
    opening = f'<table class="{kind}">' if kind else "<table>"
    lines = [opening, f"<caption>{escape(listing.caption)}</caption>", "<thead><tr>"]
    lines += [f'<th scope="col">{escape(head)}</th>' for head in listing.heads]
    lines.append("</tr></thead><tbody>")
    marks = listing.marks or ("",) * len(listing.rows)
    for mark, (name, *cells) in zip(marks, listing.rows, strict=True):
        opening = f'<tr class="{escape(mark)}">' if mark else "<tr>"
        lines.append(f'{opening}<th scope="row">{escape(name)}</th>')
        lines += [f"<td>{escape(cell)}</td>" for cell in cells]
        lines.append("</tr>")
    lines += ["</tbody></table>", notes_html(note for note in listing.notes if note not in said)]
    return "\n".join(lines) + "\n"
