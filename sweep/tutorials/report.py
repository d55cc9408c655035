"""The page of one tutorial: a table of its claims, and a note wherever one does not hold."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sweep.text import table


class Row(NamedTuple):
    """One claim. ``note`` says why it is wrong, or what the text leaves out."""

    about: str
    text_says: str
    measured: str
    verdict: Literal["holds", "wrong", "incomplete", "not said"]
    note: str = ""


def report(title: str, rows: Sequence[Row], machine: str) -> str:
    """The page in Markdown, the notes numbered below the table."""
    notes = [row.note for row in rows if row.note]
    number = {note: index for index, note in enumerate(notes, 1)}
    header = ("", "the tutorial", "measured", "verdict")
    lines = [
        (row.about, row.text_says, row.measured, f"{row.verdict} ({number[row.note]})" if row.note else row.verdict)
        for row in rows
    ]
    listed = "\n".join(f"{index}. {note}" for note, index in number.items())
    return f"# {title}\n\n{table(header, lines, left=4)}\n\n{listed}\n\n{machine}\n"
