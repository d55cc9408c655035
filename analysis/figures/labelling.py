"""Puts short labels beside points so that they cover neither each other nor a point."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

OFFSETS = ((6, 6), (6, -14), (-14, 6), (-14, -14), (0, 10), (0, -18), (12, -4), (-20, -4))


def place_labels(
    axis: Axes,
    wanted: Sequence[tuple[tuple[float, float], str]],
    points: Sequence[tuple[float, float]],
    size: float = 8.5,
) -> None:
    """Write each (point, text) at the first of eight offsets that is free; one that never fits is left out.

    ``points`` are in data coordinates and are kept clear. Call this last: axis limits and legend must not
    change afterwards.
    """
    axis.figure.draw_without_rendering()  # type: ignore[union-attr] # the layout moves the axis when it draws
    scale = axis.figure.dpi / 72
    limits = axis.get_xlim(), axis.get_ylim()
    taken = [
        Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale)
        for x, y in (axis.transData.transform(point) for point in points)
    ]
    for point, text in wanted:
        x, y = axis.transData.transform(point)
        for right, up in OFFSETS:
            width, height = 0.62 * size * len(text) * scale, 1.1 * size * scale
            box = Bbox.from_bounds(x + right * scale, y + up * scale, width, height)
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                note = axis.annotate(text, point, (right, up), textcoords="offset points", fontsize=size)
                note.set_in_layout(False)
                break
    axis.set_xlim(limits[0])
    axis.set_ylim(limits[1])
