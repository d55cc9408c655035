"""Text for a person: printable characters only, and tables that read well in a terminal and are Markdown."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, pad: bool = True) -> str:
    """A Markdown table: the first ``left`` columns aligned to the left, the others to the right.

    ``pad`` aligns them in the text, too, for a terminal.
    """
    if not pad:
        rule = "".join("|:---" if column < left else "|---:" for column in range(len(header))) + "|"
        return "\n".join([_line(header), rule, *map(_line, rows)])
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]

    def padded(line: Sequence[str]) -> str:
        return _line(
            [
                cell.ljust(width) if column < left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
        )

    rule = _line([":" + "-" * (w - 1) if column < left else "-" * (w - 1) + ":" for column, w in enumerate(widths)])
    return "\n".join([padded(header), rule, *map(padded, lines[1:])])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def named(items: Sequence[str], limit: int = 5) -> str:
    """The first few of ``items`` and how many more there are."""
    shown = ", ".join(map(str, items[:limit]))
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def printable(text: str) -> str:
    """The same text for a terminal, a page or a table: characters that are not seen become escapes, such as x1b."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
