"""Toy regression: a planted low-rank shift of a linear map or a small MLP."""
