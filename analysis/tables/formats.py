"""Writes a table as Markdown, LaTeX (booktabs), HTML or CSV, every name escaped for its format."""

import csv
import html
import io
import re
from collections.abc import Callable

from analysis.statistics.levels import REFERENCES
from analysis.tables.table import Entry, Table

_LATEX = {
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
    "±": r"$\pm$", "≥": r"$\geq$", "×": r"$\times$", "−": r"$-$", "…": r"\ldots{}", "√": r"$\surd$",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "<": r"$<$", ">": r"$>$", "|": r"$|$", "²": r"$^2$",
}  # fmt: skip


def latex_escape(text: str) -> str:
    """``text`` as LaTeX prints it literally; control characters become spaces."""
    plain = re.sub(r"[\x00-\x1f\x7f]", " ", text)
    return "".join(_LATEX.get(char, char) for char in plain)


def markdown_escape(text: str) -> str:
    """``text`` as GitHub's Markdown prints it literally inside a table cell."""
    plain = re.sub(r"[\x00-\x1f\x7f]", " ", text)
    return re.sub(r"([\\`*\[\]<>|]|(?<!\w)_|_(?!\w))", r"\\\1", plain)


def file_stem(*parts: str) -> str:
    """A file name, without its ending, of ``parts``: letters, digits, dots and dashes, and not too long."""
    return "_".join(re.sub(r"[^\w.-]", "-", part)[:60] for part in parts)


def for_spreadsheets(text: str) -> str:
    """``text`` in a CSV file: a spreadsheet would take it for a formula where it begins like one and is no number."""
    return f"'{text}" if re.match(r"[=+@-](?![\d.]+(e[+-]?\d+)?$)", text, re.IGNORECASE) else text


def render(table: Table, style: str) -> str:
    """The table in ``style``: ``md``, ``tex``, ``html`` or ``csv``."""
    return FORMATS[style](table)


def _value(entry: Entry, table: Table, plus_minus: str, none: str) -> str:
    summary = entry.summary
    if summary.n == 0:
        return none
    text = f"{summary.mean:.{table.decimals}f}"
    if summary.n > 1:
        text += f" {plus_minus} {summary.half:.{table.decimals}f}"
    return text


def _count(entry: Entry) -> str:
    lost = f", {entry.lost} of {entry.trials} lost" if entry.lost else ""
    return f"n={entry.summary.n}{lost}"


def ratio_text(ratio: float) -> str:
    """The trainable ratio as a percentage with three digits; a dash where it is no single number."""
    return "–" if ratio != ratio else f"{100 * ratio:.3g}%"


def row_ratio(table: Table, level: str) -> float | None:
    """The trainable ratio of a row when all its cells share one."""
    found = {entry.ratio for (row, _), entry in table.entries.items() if row == level}
    return found.pop() if len(found) == 1 else None


def ratio_by_row(table: Table) -> bool:
    """Whether the rows determine the trainable ratio, so that it can have a column of its own."""
    known = [row_ratio(table, level) for level in table.row_levels]
    return all(ratio is not None for ratio in known) and any(ratio == ratio for ratio in known)


def _in_cell(entry: Entry, by_row: bool) -> str:
    return "" if by_row or entry.ratio != entry.ratio else f"; {ratio_text(entry.ratio)}"


def _place(table: Table, row: str, column: str) -> Entry | None:
    """The entry at a place; a spanning row has its only entry in the first column."""
    if row in table.spanning:
        first = column == table.column_levels[0]
        return next((e for (r, _), e in table.entries.items() if r == row), None) if first else None
    return table.entries.get((row, column))


def _heads(table: Table) -> list[str]:
    if table.columns is None:
        return [f"{table.metric.label} {table.metric.arrow}".strip()]
    label = table.columns.label
    return [level if level in REFERENCES else f"{label} {level}" for level in table.column_levels]


def markdown(table: Table) -> str:
    """GitHub Markdown: a table, its caption, and one footnote a line."""
    by_row = ratio_by_row(table)
    heads = [table.rows.label, *(["trainable"] if by_row else []), *_heads(table)]
    lines = [
        "| " + " | ".join(map(markdown_escape, heads)) + " |",
        "|:---" + "|---:" * (len(heads) - 1) + "|",
    ]
    for row in table.row_levels:
        shown = [markdown_escape(row)] + ([ratio_text(row_ratio(table, row) or 0.0)] if by_row else [])
        for column in table.column_levels:
            entry = _place(table, row, column)
            if entry is None:
                shown.append("″" if row in table.spanning else "–")
                continue
            text = _value(entry, table, "±", "–") + entry.mark.replace("*", r"\*")
            text = f"**{text}**" if entry.best else text
            shown.append(f"{text} ({_count(entry)}{_in_cell(entry, by_row)})")
        lines.append("| " + " | ".join(shown) + " |")
    notes = [f"- {markdown_escape(note)}" for note in table.notes]
    return "\n".join([*lines, "", markdown_escape(table.caption), "", *notes]) + "\n"


def latex(table: Table) -> str:
    r"""A ``table`` float for the package booktabs; n stands in the caption where all cells share it."""
    by_row = ratio_by_row(table)
    sizes = {entry.summary.n for entry in table.entries.values()}
    constant = len(sizes) == 1 and not any(entry.lost for entry in table.entries.values())
    width = len(table.column_levels)
    lead = 2 if by_row else 1
    caption = table.caption.replace("over n seeds", f"over n={next(iter(sizes))} seeds") if constant else table.caption
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{latex_escape(caption)}}}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * (lead - 1)}{'r' * width}@{{}}}}",
        r"\toprule",
    ]
    if table.columns is not None:
        blank = " & " * lead
        lines.append(rf"{blank}\multicolumn{{{width}}}{{c}}{{{latex_escape(table.columns.label)}}} \\")
        lines.append(rf"\cmidrule(l){{{lead + 1}-{lead + width}}}")
    heads = [table.rows.label, *(["trainable"] if by_row else [])]
    heads += list(table.column_levels) if table.columns is not None else _heads(table)
    lines += [" & ".join(map(latex_escape, heads)) + r" \\", r"\midrule"]
    for row in table.row_levels:
        shown = [latex_escape(row)]
        shown += [latex_escape(ratio_text(row_ratio(table, row) or 0.0))] if by_row else []
        places = table.column_levels[:1] if row in table.spanning else table.column_levels
        for column in places:
            entry = _place(table, row, column)
            if entry is None:
                shown.append("--")
                continue
            value = _value(entry, table, r"\pm", "")
            inner = rf"\mathbf{{{value}}}" if entry.best else value
            text = rf"${inner}{'^{*}' if entry.mark else ''}$" if value else "--"
            extra = ("" if constant else _count(entry)) + _in_cell(entry, by_row)
            extra = extra.removeprefix("; ")
            text += rf" {{\scriptsize({latex_escape(extra)})}}" if extra else ""
            shown.append(rf"\multicolumn{{{width}}}{{c}}{{{text}}}" if row in table.spanning else text)
        lines.append(" & ".join(shown) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    lines += [rf"{{\footnotesize {latex_escape(note)}\par}}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html_table(table: Table) -> str:
    """An HTML ``table`` with its notes in a list; no style, no script."""
    by_row = ratio_by_row(table)
    heads = [table.rows.label, *(["trainable"] if by_row else []), *_heads(table)]
    lines = ["<table>", f"<caption>{html.escape(table.caption)}</caption>", "<thead><tr>"]
    lines += [f'<th scope="col">{html.escape(head)}</th>' for head in heads]
    lines.append("</tr></thead><tbody>")
    for row in table.row_levels:
        lines.append(f'<tr><th scope="row">{html.escape(row)}</th>')
        if by_row:
            lines.append(f"<td>{ratio_text(row_ratio(table, row) or 0.0)}</td>")
        places = table.column_levels[:1] if row in table.spanning else table.column_levels
        for column in places:
            entry = _place(table, row, column)
            span = f' colspan="{len(table.column_levels)}"' if row in table.spanning else ""
            if entry is None:
                lines.append("<td>–</td>")
                continue
            text = _value(entry, table, "±", "–") + entry.mark
            text = f"<b>{text}</b>" if entry.best else text
            lines.append(f"<td{span}>{text} <small>({_count(entry)}{_in_cell(entry, by_row)})</small></td>")
        lines.append("</tr>")
    lines += ["</tbody></table>", "<ul class=notes>"]
    lines += [f"<li>{html.escape(note)}</li>" for note in table.notes]
    return "\n".join([*lines, "</ul>"]) + "\n"


def comma_separated(table: Table) -> str:
    """One line a cell with full precision: the levels, n, mean, std, median, interval, ratio, marks."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    factors = [table.rows.name, *([table.columns.name] if table.columns else [])]
    measures = [
        "n",
        "mean",
        "std",
        "median",
        "low",
        "high",
        "trials",
        "lost",
        "trainable_ratio",
        "lr",
        "best",
        "mark",
    ]
    writer.writerow([*factors, "metric", *measures])
    for (row, column), entry in table.entries.items():
        s = entry.summary
        numbers = [s.mean, s.std, s.median, s.low, s.high]
        writer.writerow(
            [
                for_spreadsheets(row),
                *([for_spreadsheets(column)] if table.columns else []),
                table.metric.name,
                s.n,
                *(f"{value:.10g}" if value == value else "" for value in numbers),
                entry.trials,
                entry.lost,
                f"{entry.ratio:.10g}" if entry.ratio == entry.ratio else "",
                entry.rate,
                int(entry.best),
                entry.mark,
            ]
        )
    return out.getvalue()


FORMATS: dict[str, Callable[[Table], str]] = {
    "md": markdown,
    "tex": latex,
    "html": html_table,
    "csv": comma_separated,
}
