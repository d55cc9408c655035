"""The one exception of this package: the caller asked for something the records cannot answer."""

import difflib
from collections.abc import Iterable


class BadRequestError(ValueError):
    """A question that the records cannot answer; the message says why and what would be possible.

    The command line prints it without a traceback. Any other exception is a fault of ours.
    """


def unknown(kind: str, value: str, known: Iterable[str]) -> BadRequestError:
    """The error for a name that does not exist: the nearest known names first, then all of them."""
    names = sorted(map(str, known))
    near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    listed = ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
    return BadRequestError(f"unknown {kind} {value!r}{hint} Known: {listed or 'none'}")
