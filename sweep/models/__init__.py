"""The two architectures that the tasks train."""
