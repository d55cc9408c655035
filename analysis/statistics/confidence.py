"""The level of every interval and its name, and what a verdict generalises to; free of numpy, for the command line."""

from typing import Literal

CONFIDENCE = 0.95
INTERVAL_NAME = f"{CONFIDENCE:.0%} t interval"

Generalise = Literal["seeds", "examples", "both"]
"""What a verdict should hold for besides what was tried: new seeds, new examples, or both."""
