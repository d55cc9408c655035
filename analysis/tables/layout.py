"""What the formats of a table share: which cell stands where, and the text inside it."""

import math
import re

from analysis.statistics.levels import REFERENCES
from analysis.tables.numbers import HUGE, TINY, exponent, mean_and_half, varies
from analysis.tables.table import Entry, Table


def file_stem(*parts: str) -> str:
    """A file name, without its ending, of ``parts``: letters, digits, dots and dashes, and not too long."""
    return "_".join(re.sub(r"[^\w.-]", "-", part)[:60] for part in parts)


def without_controls(text: str) -> str:
    """``text`` with spaces for its control characters."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)


def value_text(entry: Entry, table: Table, plus_minus: str, none: str) -> str:
    """Mean and half interval of a cell, with the digits of its own interval; ``none`` where it has no value."""
    summary = entry.summary
    if summary.n == 0:
        return none
    if varies(summary):
        return mean_and_half(summary.mean, summary.half, plus_minus)
    far = summary.mean != 0 and not TINY <= abs(summary.mean) < HUGE
    text = exponent(summary.mean, 3) if far else f"{summary.mean:.{table.decimals}f}" if summary.mean else "0"
    return f"{text} {plus_minus} 0" if summary.n > 1 and summary.mean else text


def count_text(entry: Entry) -> str:
    """How many seeds a cell rests on, and how many of its trials were lost."""
    lost = f", {entry.lost} of {entry.trials} lost" if entry.lost else ""
    return f"n={entry.summary.n}{lost}"


def ratio_text(ratio: float) -> str:
    """The trainable ratio as a percentage with three digits; a dash where it is no single number."""
    return "–" if math.isnan(ratio) else f"{100 * ratio:.3g}%"


def ratio_in_cell(entry: Entry, ratios: dict[str, float]) -> str:
    """The trainable ratio behind the count of a cell, where it has no column of its own."""
    return "" if ratios or math.isnan(entry.ratio) else f"; {ratio_text(entry.ratio)}"


def ratio_by_row(table: Table) -> dict[str, float]:
    """The trainable ratio of each row, for a column of its own; empty where the rows do not determine it."""
    by_row: dict[str, set[float]] = {level: set() for level in table.row_levels}
    for (row, _), entry in table.entries.items():
        by_row[row].add(entry.ratio)
    if any(len(ratios) != 1 for ratios in by_row.values()):
        return {}
    only = {row: ratios.pop() for row, ratios in by_row.items()}
    return {} if all(math.isnan(ratio) for ratio in only.values()) else only


def row_cells(table: Table, row: str) -> list[Entry | None]:
    """The entries of a row, None where there is none; a spanning row has one, for all columns."""
    if row in table.spanning:
        return [next((entry for (level, _), entry in table.entries.items() if level == row), None)]
    return [table.entries.get((row, column)) for column in table.column_levels]


def column_heads(table: Table) -> list[str]:
    """The heads of the columns that hold values."""
    if table.columns is None:
        return [f"{table.metric.label} {table.metric.arrow}".strip()]
    label = table.columns.label
    return [level if level in REFERENCES else f"{label} {level}" for level in table.column_levels]
