"""From records to a verdict: loads the trials of a sweep, compares them honestly, and draws them.

``analysis.load("outputs/rank")`` gives the trials as a pandas frame; ``python -m analysis outputs/rank``
writes the report.
"""

from analysis.sources.load import load
from analysis.sources.sweep import Sweep

__all__ = ["Sweep", "load"]
