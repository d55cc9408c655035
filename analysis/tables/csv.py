"""A table as CSV, for spreadsheets and other programs."""

import csv
import io
import math
import re

from analysis.tables.table import Table

MEASURES = ("n", "mean", "std", "median", "low", "high", "trials", "lost", "trainable_ratio", "lr", "best", "mark")
FORMULA = r"^[=+@-](?![\d.]+(e[+-]?\d+)?$)"
"""What a spreadsheet would read as a formula, in either case: a regular expression, for a page's script too."""


def for_spreadsheets(text: str) -> str:
    """``text`` in a CSV file: quoted where a spreadsheet would read it as a formula."""
    return f"'{text}" if re.match(FORMULA, text, re.IGNORECASE) else text


def comma_separated(table: Table) -> str:
    """One line a cell with full precision: the levels, n, mean, std, median, interval, ratio, marks."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    factors = [table.rows.name, *([table.columns.name] if table.columns else [])]
    writer.writerow([*map(for_spreadsheets, factors), "metric", *MEASURES])
    for (row, column), entry in table.entries.items():
        summary = entry.summary
        writer.writerow(
            [
                for_spreadsheets(row),
                *([for_spreadsheets(column)] if table.columns else []),
                for_spreadsheets(table.metric.name),
                summary.n,
                *map(_number, (summary.mean, summary.std, summary.median, summary.low, summary.high)),
                entry.trials,
                entry.lost,
                _number(entry.ratio),
                entry.rate,
                int(entry.best),
                entry.mark,
            ]
        )
    return out.getvalue()


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.10g}"
