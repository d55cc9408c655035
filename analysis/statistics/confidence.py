"""The level of every interval and its name; free of numpy, for the command line's help."""

CONFIDENCE = 0.95
INTERVAL_NAME = f"{CONFIDENCE:.0%} t interval"
