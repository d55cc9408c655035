"""Chooses how a table is written."""

from collections.abc import Callable

from analysis.tables.csv import comma_separated
from analysis.tables.html import html
from analysis.tables.latex import latex
from analysis.tables.markdown import markdown
from analysis.tables.table import Table

FORMATS: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex, "html": html, "csv": comma_separated}


def render(table: Table, style: str) -> str:
    """The table in ``style``: ``md``, ``tex``, ``html`` or ``csv``, every name escaped for it."""
    return FORMATS[style](table)
