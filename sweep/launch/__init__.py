"""A launch: what is left to train, in which packs, and what that costs."""
