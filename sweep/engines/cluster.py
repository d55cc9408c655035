"""What the engines of clusters share: many places, and memory requested for each pack."""

from collections.abc import Sequence

import torch

from sweep.engines.options import LaunchOptions
from sweep.hardware import available_memory
from sweep.packs.pack import Pack
from sweep.resolve import ResolvedTrial

START_GB = 1.0
"""Memory of a process before it trains anything."""
SPARE_MEMORY = 2.0
"""A pack asks for this many times its estimated memory."""


class ClusterEngine:
    """The part of the ``Engine`` interface that is the same on every cluster.

    A node is taken to be like this machine where ``memory_gb`` is not given.
    """

    least_work_s = 0.0
    assumed_places = 16
    is_here = False

    def __init__(self, options: LaunchOptions):
        self._options = options
        if options.memory_gb is None:
            self.room = available_memory(torch.device("cpu")) / SPARE_MEMORY
        else:
            self.room = max(0.0, (options.memory_gb - START_GB) / SPARE_MEMORY * 1e9)

    def max_pack(self, trials: Sequence[ResolvedTrial]) -> int:
        """As many as the user allows."""
        return self._options.max_pack

    def requested_gb(self, pack: Pack) -> float:
        """Gigabytes (10⁹ bytes) that ``pack`` asks for."""
        return self._options.memory_gb or START_GB + SPARE_MEMORY * pack.memory_bytes / 1e9
