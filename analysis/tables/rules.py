"""The rules by which a page's script writes the tables that it makes itself: those of the writers here."""

from typing import Any

from analysis.tables.csv import FORMULA
from analysis.tables.latex import LATEX, latex_float
from analysis.tables.markdown import SPECIAL

RULES: dict[str, Any] = {
    "special": SPECIAL,
    "latex": LATEX,
    "frame": latex_float("CAPTION", "COLUMNS", ["HEADS"], ["ROWS"], ["NOTE"]),
    "formula": FORMULA,
}
