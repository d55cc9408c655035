"""From records to a verdict: loads the trials of a sweep, compares them, and draws them.

``analysis.load("outputs/rank")`` gives results that answer questions and hold the trials as a pandas frame;
``python -m analysis outputs/rank`` writes the report.
"""

from analysis.results import Results, from_frame, load
from analysis.sources.sweep import Sweep

__all__ = ["Results", "Sweep", "from_frame", "load"]
