"""Digits: an MLP adapts to rotated, inverted or single digits."""
