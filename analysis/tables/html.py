"""A table as HTML."""

from collections.abc import Collection, Iterable
from html import escape

from analysis.tables.layout import (
    column_heads,
    count_text,
    ratio_by_row,
    ratio_in_cell,
    ratio_text,
    row_cells,
    value_text,
)
from analysis.tables.table import Entry, Table


def scrolling(grid: str, label: str) -> str:
    """A table as HTML in a region that scrolls sideways by itself, with the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{grid}</div>'


def html(table: Table, said: Collection[str] = ()) -> str:
    """A ``table`` with its notes in a list, but for those that are ``said`` elsewhere; no style, no script."""
    ratios = ratio_by_row(table)
    heads = [table.rows.label, *(["trainable"] if ratios else []), *column_heads(table)]
    lines = ["<table>", f"<caption>{escape(table.caption)}</caption>", "<thead><tr>"]
    lines += [f'<th scope="col">{escape(head)}</th>' for head in heads]
    lines.append("</tr></thead><tbody>")
    for row in table.row_levels:
        lines.append(f'<tr><th scope="row">{escape(row)}</th>')
        if ratios:
            lines.append(f"<td>{ratio_text(ratios[row])}</td>")
        span = f' colspan="{len(table.column_levels)}"' if row in table.spanning else ""
        for entry in row_cells(table, row):
            lines.append("<td>–</td>" if entry is None else f"<td{span}>{_cell(entry, table, ratios)}</td>")
        lines.append("</tr>")
    lines += ["</tbody></table>", notes_html(note for note in table.notes if note not in said)]
    return "\n".join(lines) + "\n"


def notes_html(notes: Iterable[str]) -> str:
    """Notes under a table, as a list; nothing where there are none."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _cell(entry: Entry, table: Table, ratios: dict[str, float]) -> str:
    text = value_text(entry, table, "±", "–") + entry.mark
    text = f"<b>{text}</b>" if entry.best else text
    return f"{text} <small>({count_text(entry)}{ratio_in_cell(entry, ratios)})</small>"
