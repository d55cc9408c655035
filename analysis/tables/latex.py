"""A table as LaTeX, for the package booktabs."""

import re
from collections.abc import Sequence

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

GREEK = 0x370
"""The first letter that pdflatex does not set by itself."""
LATEX = {
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "−": r"$-$",
    "…": r"\ldots{}",
    "√": r"$\surd$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "²": r"$^2$",
}
"""Characters that LaTeX does not print literally, and how it does print them."""


def latex_escape(text: str) -> str:
    """``text`` as LaTeX prints it literally; control characters become spaces."""
    return "".join(LATEX.get(char, char) for char in without_controls(text))


def latex_line(cells: Sequence[str]) -> str:
    r"""One row; behind the ``\\`` of the row above, a ``[`` or a ``*`` would be its argument."""
    text = " & ".join(cells) + r" \\"
    return "{}" + text if text.startswith(("[", "*")) else text


def latex(table: Table) -> str:
    r"""A ``table`` float; n stands in the caption where all cells share it."""
    ratios = ratio_by_row(table)
    sizes = {entry.summary.n for entry in table.entries.values()}
    one_size = len(sizes) == 1 and not any(entry.lost for entry in table.entries.values())
    caption = table.caption.replace("over n seeds", f"over n={next(iter(sizes))} seeds") if one_size else table.caption
    width, lead = len(table.column_levels), 2 if ratios else 1
    rows = []
    for row in table.row_levels:
        shown = [latex_escape(row), *([latex_escape(ratio_text(ratios[row]))] if ratios else [])]
        for entry in row_cells(table, row):
            text = "--" if entry is None else _cell(entry, table, ratios, one_size)
            spans = row in table.spanning and entry is not None
            shown.append(rf"\multicolumn{{{width}}}{{c}}{{{text}}}" if spans else text)
        rows.append(latex_line(shown))
    return latex_float(caption, f"l{'r' * (lead - 1 + width)}", [*_heads(table, lead)], rows, table.notes)


def latex_float(caption: str, columns: str, heads: Sequence[str], rows: Sequence[str], notes: Sequence[str]) -> str:
    r"""A ``table`` float of ``columns`` such as ``lrr``, with finished lines of LaTeX for its heads and rows."""
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{latex_escape(caption)}}}",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        *heads,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        "",
        *(rf"{{\footnotesize {latex_escape(note)}\par}}" for note in notes),
        r"\end{table}",
    ]
    text = "\n".join(lines) + "\n"
    foreign = any(char.isalpha() and ord(char) >= GREEK for char in text)
    return "% needs lualatex or xelatex, and a font that has its letters\n" + text if foreign else text


def _heads(table: Table, lead: int) -> list[str]:
    """The lines above the rule: the column factor over its levels, then the heads."""
    lines = []
    width = len(table.column_levels)
    if table.columns is not None:
        lines.append(rf"{' & ' * lead}\multicolumn{{{width}}}{{c}}{{{latex_escape(table.columns.label)}}} \\")
        lines.append(rf"\cmidrule(l){{{lead + 1}-{lead + width}}}")
    heads = [table.rows.label, *(["trainable"] if lead == 2 else [])]
    heads += list(table.column_levels) if table.columns is not None else column_heads(table)
    return [*lines, latex_line([latex_escape(head) for head in heads])]


def _cell(entry: Entry, table: Table, ratios: dict[str, float], one_size: bool) -> str:
    value = re.sub(r"e(-?\d+)", r" \\times 10^{\1}", value_text(entry, table, r"\pm", ""))
    inner = rf"\mathbf{{{value}}}" if entry.best else value
    text = rf"${inner}{'^{*}' if entry.mark else ''}$" if value else "--"
    extra = ("" if one_size else count_text(entry)) + ratio_in_cell(entry, ratios)
    extra = extra.removeprefix("; ")
    return text + (rf" {{\scriptsize({latex_escape(extra)})}}" if extra else "")
