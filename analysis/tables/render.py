"""Chooses how a table is written."""

from collections.abc import Callable
from typing import Any

from analysis.tables.csv import FORMULA, comma_separated
from analysis.tables.html import html
from analysis.tables.latex import LATEX, latex, latex_float
from analysis.tables.listing import Listing, listing_csv, listing_html, listing_latex, listing_markdown
from analysis.tables.markdown import SPECIAL, markdown
from analysis.tables.table import Table

FORMATS: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex, "html": html, "csv": comma_separated}
OF_LISTINGS: dict[str, Callable[[Listing], str]] = {
    "md": listing_markdown,
    "tex": listing_latex,
    "html": listing_html,
    "csv": listing_csv,
}
RULES: dict[str, Any] = {
    "special": SPECIAL,
    "latex": LATEX,
    "frame": latex_float("CAPTION", "COLUMNS", ["HEADS"], ["ROWS"], ["NOTE"]),
    "formula": FORMULA,
}
"""How a page's script writes the tables that it makes itself as these writers do."""


def render(table: Table | Listing, style: str) -> str:
    """The table in ``style``: ``md``, ``tex``, ``html`` or ``csv``, every name escaped for it."""
    return OF_LISTINGS[style](table) if isinstance(table, Listing) else FORMATS[style](table)
