"""The options of where rows go."""

from typing import Literal

from pydantic import field_validator

from sweep.options import Names, Options
from sweep.registry import TRACKERS


class TrackerOptions(Options):
    """Where rows go besides the local files: W&B ``offline`` (default) or ``online``, or ``none``.

    ``also`` names trackers of plug-ins.
    """

    mode: Literal["offline", "online", "none"]
    project: str
    also: Names = ()

    @field_validator("also")
    @classmethod
    def _known(cls, names: Names) -> Names:
        for name in names:
            if name not in TRACKERS.names:
                known = (
                    ", ".join(map(TRACKERS.shown, TRACKERS.names)) or "none, for no plug-in that is installed gives one"
                )
                raise ValueError(f"{name!r} is not a tracker; known here: {known}")
            if conflict := TRACKERS.conflict(name):
                raise ValueError(f"{name!r} is {conflict}")
        return names
