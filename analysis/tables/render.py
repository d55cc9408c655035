"""Chooses how a table is written; what writes it is imported then, so that the command line knows the formats at once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from analysis.tables.listing import Listing
    from analysis.tables.table import Table


class Format(NamedTuple):
    """Where the functions are, ``module:function``, that write a table and a listing as text."""

    table: str
    listing: str


FORMATS = {
    "md": Format("analysis.tables.markdown:markdown", "analysis.tables.listing:listing_markdown"),
    "tex": Format("analysis.tables.latex:latex", "analysis.tables.listing:listing_latex"),
    "csv": Format("analysis.tables.csv:comma_separated", "analysis.tables.listing:listing_csv"),
    "html": Format("analysis.tables.html:html", "analysis.tables.listing:listing_html"),
}


def render(table: Table | Listing, style: str) -> str:
    """The table in ``style``, one of ``FORMATS``, every name escaped for it."""
    from analysis.tables.listing import Listing

    form = FORMATS[style]
    module, _, function = (form.listing if isinstance(table, Listing) else form.table).partition(":")
    text: str = getattr(import_module(module), function)(table)
    return text
