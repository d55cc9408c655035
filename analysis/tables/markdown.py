"""A table as GitHub Markdown."""

import re

from analysis.tables.layout import (
    column_heads,
    count_text,
    ratio_by_row,
    ratio_in_cell,
    ratio_text,
    row_cells,
    value_text,
    without_controls,
)
from analysis.tables.table import Entry, Table
from sweep import text

SPECIAL = r"[\\`*\[\]<>|~]|&(?=#?\w+;)|(?<![^\W_])_+|_+(?![^\W_])"
"""What GitHub's Markdown would take for markup inside a table cell: a regular expression, for a page's script too."""


def markdown_escape(words: str) -> str:
    """``words`` as GitHub's Markdown prints them literally inside a table cell."""
    return re.sub(SPECIAL, lambda match: "".join(f"\\{char}" for char in match[0]), without_controls(words))


def markdown(table: Table) -> str:
    """The table, its caption, and one footnote a line."""
    ratios = ratio_by_row(table)
    heads = [table.rows.label, *(["trainable"] if ratios else []), *column_heads(table)]
    rows = []
    for row in table.row_levels:
        cells = [_cell(entry, table, ratios) for entry in row_cells(table, row)]
        ditto = ["″"] * (len(table.column_levels) - len(cells))
        rows.append([markdown_escape(row), *([ratio_text(ratios[row])] if ratios else []), *cells, *ditto])
    notes = [f"- {markdown_escape(note)}" for note in table.notes]
    grid = text.table([markdown_escape(head) for head in heads], rows, pad=False)
    return "\n".join([grid, "", markdown_escape(table.caption), "", *notes]) + "\n"


def _cell(entry: Entry | None, table: Table, ratios: dict[str, float]) -> str:
    if entry is None:
        return "–"
    value = value_text(entry, table, "±", "–") + entry.mark.replace("*", r"\*")
    value = f"**{value}**" if entry.best else value
    return f"{value} ({count_text(entry)}{ratio_in_cell(entry, ratios)})"
