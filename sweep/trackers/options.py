"""The options of where rows go."""

from typing import Literal

from sweep.options import Names, Options


class TrackerOptions(Options):
    """Where rows go besides the local files: W&B ``offline`` (default) or ``online``, or ``none``.

    ``also`` names trackers of plug-ins.
    """

    mode: Literal["offline", "online", "none"]
    project: str
    also: Names = ()
