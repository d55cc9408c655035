"""Text for a person: printable characters only, and tables that read well in a terminal and are Markdown."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align the columns, the first ``left`` to the left and the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]

    def write(line: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "| " + " | ".join(cells) + " |"

    rule = (":" + "-" * (w - 1) if column < left else "-" * (w - 1) + ":" for column, w in enumerate(widths))
    return "\n".join([write(header), "| " + " | ".join(rule) + " |", *map(write, lines[1:])])


def printable(text: str) -> str:
    """The same text for a terminal, a page or a table: characters that are not seen become escapes, such as x1b."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
