"""The errors that a user of the command line can meet."""

from collections.abc import Sequence


class ConfigError(ValueError):
    """What a user asked for cannot be done; the message lists every fault and what would be allowed."""

    def __init__(self, faults: Sequence[str]):
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class CommandError(RuntimeError):
    """A sweep that was started from Python was refused, or ended before its trials did; the message is the command's."""
