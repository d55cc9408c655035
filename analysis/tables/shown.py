"""One answer as a terminal, a notebook, pandas and a paper take it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.tables.layout import file_stem
from analysis.tables.listing import Listing
from analysis.tables.render import render
from analysis.tables.table import Table


@dataclass(frozen=True, repr=False)
class Shown:
    """An answer. ``print`` shows ``text``, a notebook the same as HTML; ``frame`` has its numbers, one row a cell."""

    table: Table | Listing
    text: str
    frame: pd.DataFrame

    @property
    def name(self) -> str:
        """The name of its files, without ending."""
        if isinstance(self.table, Listing):
            return self.table.name
        columns = (self.table.metric, self.table.rows, self.table.columns)
        return file_stem("table", *(column.name for column in columns if column))

    def render(self, style: str) -> str:
        """The answer in ``style``, one of ``analysis.tables.render.FORMATS``."""
        return render(self.table, style)

    @property
    def markdown(self) -> str:
        """The answer as GitHub Markdown."""
        return self.render("md")

    @property
    def latex(self) -> str:
        """The answer as LaTeX, for the package booktabs."""
        return self.render("tex")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.render("html")
